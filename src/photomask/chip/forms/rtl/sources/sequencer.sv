// Runs the descriptor table from address 0 to the first STOP, one descriptor after the other.
//
// A pass has these stages. It fetches the descriptor, then its parameters. MATRIX then loads
// WEIGHT_WORDS words of weights, unless it keeps those that the array holds. The map is streamed,
// or the row unit runs. The pass ends when every result is written. The next pass does not overlap
// with it, so a pass may read whatever an earlier pass wrote.
//
// Timing: a pass takes 3 cycles, WEIGHT_WORDS cycles to load weights, one cycle for each tap (or
// the cycles of the row unit), and the latency of the unit that computes.

module sequencer
  import descriptor_package::*;
#(
    parameter int WEIGHT_WORDS = 16  // the words of one tile
) (
    input  logic        clock,
    input  logic        reset,
    /* verilator lint_off UNUSEDSIGNAL */  // other units read the other fields
    input  descriptor_t descriptor,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic [31:0] descriptor_address,
    output logic [31:0] weight_address,
    output logic        weight_read,
    output logic        stream_start,
    input  logic        stream_finished,
    input  logic        result_issued,
    input  logic        result_written,
    output logic        step_done,  // high for one cycle when a step's output is complete
    output logic        done,
    output logic [31:0] cycles  // the cycles from reset to done
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
  logic [31:0] word;
  logic [31:0] pending;  // the number of results that are computed but not yet written

  assign weight_address = descriptor.weight_address + word;
  assign weight_read = state == LOAD;
  assign stream_start = state == START;
  assign done = state == DONE;
  assign step_done = state == DRAIN && pending == 0 && descriptor.last_of_step;

  always_ff @(posedge clock) begin
    if (reset) begin
      state <= FETCH;
      descriptor_address <= '0;
      word <= '0;
    end else begin
      case (state)
        FETCH: state <= PREPARE;
        PREPARE: begin
          word <= '0;
          case (descriptor.operation)
            STOP: state <= DONE;
            MATRIX: state <= descriptor.keep_weights ? START : LOAD;
            default: state <= START;
          endcase
        end
        LOAD: begin
          word <= word + 1;
          if (word == WEIGHT_WORDS - 1) state <= START;
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
