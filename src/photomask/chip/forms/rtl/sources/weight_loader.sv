// Turns words of the weight memory, or words that a TILE reads, into what the array loads.
//
// The array loads the weights of KEPT rows at once, with their positions in the group. A word of
// the weight memory holds exactly that: COLUMNS * KEPT weights in the low bits, and above them the
// number of each column's pattern (see pattern_package). A TILE reads one row per cycle, the last
// one first. The loader holds KEPT - 1 rows back and passes KEPT rows on together. Their positions
// are 0 to KEPT - 1, because the tile is dense.
//
// Timing: no cycle of delay. A dense array (KEPT = GROUP = 1) needs only the multiplexer.

module weight_loader
  import pattern_package::*;
#(
    parameter int COLUMNS = 16,
    parameter int WEIGHT_BITS = 8,
    parameter int KEPT = 1,
    parameter int GROUP = 1,
    localparam int WORD_BITS = COLUMNS * (KEPT * WEIGHT_BITS + index_bits(KEPT, GROUP)),
    localparam int POSITION_BITS = position_bits(GROUP)
) (
    /* verilator lint_off UNUSEDSIGNAL */  // a group of one row is complete at once
    input  logic                                  clock,
    input  logic                                  start,  // comes before the first row of a TILE
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic                                  word_valid,
    input  logic [                 WORD_BITS-1:0] word,
    input  logic                                  row_valid,
    input  logic [       COLUMNS*WEIGHT_BITS-1:0] row,
    output logic                                  weight_valid,
    output logic [  COLUMNS*KEPT*WEIGHT_BITS-1:0] weights,
    output logic [COLUMNS*KEPT*POSITION_BITS-1:0] positions
);

  localparam int VALUES = COLUMNS * KEPT * WEIGHT_BITS;

  if (GROUP == 1) begin : dense
    assign weight_valid = word_valid || row_valid;
    assign weights = row_valid ? row : word;
    assign positions = '0;
  end else begin : sparse
    localparam int PATTERN_BITS = index_bits(KEPT, GROUP);

    logic [COLUMNS*KEPT*WEIGHT_BITS-1:0] rows;
    logic [COLUMNS*KEPT*POSITION_BITS-1:0] decoded;
    logic last_row;  // the row that completes a group

    // The largest p with binomial(p, slot + 1) <= rest is the position of a slot, from the last
    // slot to the first.
    always_comb begin
      logic [31:0] rest, taken;
      decoded = '0;
      for (int c = 0; c < COLUMNS; c++) begin
        rest = 32'(word[VALUES+c*PATTERN_BITS+:PATTERN_BITS]);
        for (int slot = KEPT - 1; slot >= 0; slot--) begin
          taken = '0;
          for (int p = 0; p < GROUP; p++) begin
            if (rest >= 32'(binomial(p, slot + 1))) begin
              decoded[(c*KEPT+slot)*POSITION_BITS+:POSITION_BITS] = POSITION_BITS'(p);
              taken = 32'(binomial(p, slot + 1));
            end
          end
          rest = rest - taken;
        end
      end
    end

    if (KEPT == 1) begin : single
      assign rows = row;
      assign last_row = 1'b1;
    end else begin : several
      logic [COLUMNS*WEIGHT_BITS-1:0] held[KEPT-1];  // held[s]: the row that came s + 1 rows ago
      logic [$clog2(KEPT)-1:0] slot;

      assign last_row = slot == 0;

      always_comb begin
        for (int c = 0; c < COLUMNS; c++) begin
          rows[c*KEPT*WEIGHT_BITS+:WEIGHT_BITS] = row[c*WEIGHT_BITS+:WEIGHT_BITS];
          for (int s = 1; s < KEPT; s++) begin
            rows[(c*KEPT+s)*WEIGHT_BITS+:WEIGHT_BITS] = held[s-1][c*WEIGHT_BITS+:WEIGHT_BITS];
          end
        end
      end

      always_ff @(posedge clock) begin
        if (start) begin
          slot <= ($clog2(KEPT))'(KEPT - 1);
        end else if (row_valid) begin
          slot <= last_row ? ($clog2(KEPT))'(KEPT - 1) : slot - 1;
        end
        if (row_valid) begin
          held[0] <= row;
          for (int s = 1; s < KEPT - 1; s++) held[s] <= held[s-1];
        end
      end
    end

    assign weight_valid = word_valid || (row_valid && last_row);
    assign weights = row_valid ? rows : word[VALUES-1:0];
    always_comb begin
      positions = decoded;
      if (row_valid) begin
        for (int slot = 0; slot < COLUMNS * KEPT; slot++) begin
          positions[slot*POSITION_BITS+:POSITION_BITS] = POSITION_BITS'(slot % KEPT);
        end
      end
    end
  end

endmodule
