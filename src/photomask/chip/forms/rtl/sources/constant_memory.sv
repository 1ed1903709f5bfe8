// A memory for weights, parameters or descriptors. The program's images fill it, and the design
// only reads it.
//
// Timing: a word appears at the output one cycle after its address. All words are 0 at first.

module constant_memory #(
    parameter int WORD_BITS = 128,
    parameter int DEPTH = 1024
) (
    input  logic                 clock,
    /* verilator lint_off UNUSEDSIGNAL */  // a descriptor's addresses are wider than most memories'
    input  logic [         31:0] read_address,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic [WORD_BITS-1:0] read_word
);

  localparam int INDEX_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;

  logic [WORD_BITS-1:0] words[DEPTH];

  initial for (int word = 0; word < DEPTH; word++) words[word] = '0;

  always_ff @(posedge clock) read_word <= words[INDEX_BITS'(read_address)];

endmodule
