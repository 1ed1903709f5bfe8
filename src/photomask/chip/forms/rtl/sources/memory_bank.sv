// A memory of words with LANES lanes. It has two read ports, one write port, and one write enable
// for each lane.
//
// Timing: a word appears at the output one cycle after its address. A read in the cycle of a write
// to the same word returns the old word. All words are 0 at first.

module memory_bank #(
    parameter int LANES = 16,
    parameter int LANE_BITS = 8,
    parameter int DEPTH = 1024,
    parameter int ADDRESS_BITS = 16
) (
    input  logic                       clock,
    /* verilator lint_off UNUSEDSIGNAL */  // the other memory may be deeper and its addresses wider
    input  logic [   ADDRESS_BITS-1:0] first_read_address,
    input  logic [   ADDRESS_BITS-1:0] second_read_address,
    input  logic [   ADDRESS_BITS-1:0] write_address,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic [LANES*LANE_BITS-1:0] first_read_word,
    output logic [LANES*LANE_BITS-1:0] second_read_word,
    input  logic                       write_valid,
    input  logic [          LANES-1:0] write_lanes,
    input  logic [LANES*LANE_BITS-1:0] write_word
);

  localparam int INDEX_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;

  logic [LANES*LANE_BITS-1:0] words[DEPTH];

  initial for (int word = 0; word < DEPTH; word++) words[word] = '0;

  always_ff @(posedge clock) begin
    first_read_word  <= words[INDEX_BITS'(first_read_address)];
    second_read_word <= words[INDEX_BITS'(second_read_address)];
    if (write_valid) begin
      for (int lane = 0; lane < LANES; lane++) begin
        if (write_lanes[lane]) begin
          words[INDEX_BITS'(write_address)][lane*LANE_BITS+:LANE_BITS]
              <= write_word[lane*LANE_BITS+:LANE_BITS];
        end
      end
    end
  end

endmodule
