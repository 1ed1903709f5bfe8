// Runs the descriptor table from address 0 to the first STOP, one descriptor after the other.
//
// A pass: fetch the descriptor; fetch its parameters; for MATRIX load ROWS words of weights, unless
// it keeps those of a TILE; stream the map, or let the row unit run; wait until every result is
// written. Nothing of the next pass overlaps, so a pass may read whatever an earlier one wrote.
//
// Timing: 3 cycles, ROWS more to load weights, one for each tap (or what the row unit takes), and
// the latency of the unit that computes.

module sequencer
  import descriptor_package::*;
#(
    parameter int ROWS = 16
) (
    input  logic        clock,
    input  logic        reset,
    /* verilator lint_off UNUSEDSIGNAL */  // the fields of a descriptor that others read
    input  descriptor_t descriptor,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic [31:0] descriptor_address,
    output logic [31:0] weight_address,
    output logic        weight_read,
    output logic        stream_start,
    input  logic        stream_finished,
    input  logic        result_issued,
    input  logic        result_written,
    output logic        step_done,  // for one cycle, when a step's output is complete
    output logic        done,
    output logic [31:0] cycles  // since reset, until done
);

  typedef enum logic [2:0] {
    FETCH,
    PREPARE,
    LOAD,
    START,
    STREAM,
    DRAIN,
    DONE
  } state_t;

  state_t state;
  logic [31:0] row;
  logic [31:0] pending;  // results on their way

  assign weight_address = descriptor.weight_address + row;
  assign weight_read = state == LOAD;
  assign stream_start = state == START;
  assign done = state == DONE;
  assign step_done = state == DRAIN && pending == 0 && descriptor.last_of_step;

  always_ff @(posedge clock) begin
    if (reset) begin
      state <= FETCH;
      descriptor_address <= '0;
      row <= '0;
    end else begin
      case (state)
        FETCH: state <= PREPARE;
        PREPARE: begin
          row <= '0;
          case (descriptor.operation)
            STOP: state <= DONE;
            MATRIX: state <= descriptor.keep_weights ? START : LOAD;
            default: state <= START;
          endcase
        end
        LOAD: begin
          row <= row + 1;
          if (row == ROWS - 1) state <= START;
        end
        START: state <= STREAM;
        STREAM: if (stream_finished) state <= DRAIN;
        DRAIN: begin
          if (pending == 0) begin
            descriptor_address <= descriptor_address + 1;
            state <= FETCH;
          end
        end
        default: ;
      endcase
    end
  end

  always_ff @(posedge clock) begin
    if (reset) pending <= '0;
    else pending <= pending + 32'(result_issued) - 32'(result_written);
  end

  always_ff @(posedge clock) begin
    if (reset) cycles <= '0;
    else if (!done) cycles <= cycles + 1;
  end

endmodule
