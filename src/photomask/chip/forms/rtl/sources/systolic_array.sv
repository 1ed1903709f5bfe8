// A weight-stationary systolic array: sums[c] = sum over r of weight[r][c] * activation[r].
//
// This is the module to replace by your own array. Your array must keep this contract:
//   - `weight_valid` is high for ROWS cycles, which bring the weights of one tile, the last row
//     first. `weights` holds one weight for each column. No activation enters during these cycles,
//     and none is inside the array.
//   - Each cycle in which `activation_valid` is high brings one activation for each row. There is
//     no back pressure.
//   - For each vector of activations, one vector of sums leaves with `sum_valid`, in the same
//     order, after any number of cycles.
// Column 0 and row 0 lie in the least significant bits. Weights are signed. Activations are signed
// and one bit wider than the activation memory, so that unsigned codes fit. Sums are exact modulo
// 2**ACCUMULATOR_BITS; it is proven that the program never leaves that range.
//
// Depthwise and grouped convolutions need no other array. Their tiles are zero outside the (block)
// diagonal.
//
// How this array works: weights shift down the columns. The activation of row r is delayed by r
// cycles and moves one column to the right per cycle. Partial sums move one row down per cycle. The
// sum of column c is delayed by COLUMNS - 1 - c cycles, so that all columns of a sum leave
// together.
//
// Timing: ROWS + COLUMNS - 1 cycles from activations to sums, one vector per cycle.

module systolic_array #(
    parameter int ROWS = 16,
    parameter int COLUMNS = 16,
    parameter int WEIGHT_BITS = 8,
    parameter int ACTIVATION_BITS = 8,
    parameter int ACCUMULATOR_BITS = 32
) (
    input  logic                                clock,
    input  logic                                reset,
    input  logic                                weight_valid,
    input  logic [     COLUMNS*WEIGHT_BITS-1:0] weights,
    input  logic                                activation_valid,
    input  logic [ROWS*(ACTIVATION_BITS+1)-1:0] activations,
    output logic                                sum_valid,
    output logic [COLUMNS*ACCUMULATOR_BITS-1:0] sums
);

  localparam int LATENCY = ROWS + COLUMNS - 1;

  typedef logic signed [WEIGHT_BITS-1:0] weight_t;
  typedef logic signed [ACTIVATION_BITS:0] activation_t;
  typedef logic signed [ACCUMULATOR_BITS-1:0] sum_t;

  weight_t weight[ROWS][COLUMNS];
  activation_t skewed[ROWS][ROWS];  // skewed[r][d]: the activation of row r, d + 1 cycles old
  activation_t entering[ROWS][COLUMNS];  // the activation that enters each cell from the left
  activation_t moving[ROWS][COLUMNS];  // the activation that leaves each cell to the right
  sum_t partial[ROWS][COLUMNS];  // the sum that leaves each cell downwards
  sum_t aligned[COLUMNS][COLUMNS];  // aligned[c][d]: the sum of column c, d + 1 cycles old
  logic [LATENCY-1:0] valid;

  // Synthesis removes the delays that are not read here. The remainders (%) keep an index legal in
  // the branch that is not taken.
  always_comb begin
    for (int r = 0; r < ROWS; r++) begin
      entering[r][0] = r == 0 ? activations[0+:ACTIVATION_BITS+1] : skewed[r][(r+ROWS-1)%ROWS];
      for (int c = 1; c < COLUMNS; c++) entering[r][c] = moving[r][c-1];
    end
    for (int c = 0; c < COLUMNS; c++) begin
      sums[c*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] =
          c == COLUMNS - 1 ? partial[ROWS-1][c] : aligned[c][(2*COLUMNS-2-c)%COLUMNS];
    end
    sum_valid = valid[LATENCY-1];
  end

  always_ff @(posedge clock) begin
    if (weight_valid) begin
      for (int c = 0; c < COLUMNS; c++) begin
        weight[0][c] <= weights[c*WEIGHT_BITS+:WEIGHT_BITS];
        for (int r = 1; r < ROWS; r++) weight[r][c] <= weight[r-1][c];
      end
    end
  end

  always_ff @(posedge clock) begin
    for (int r = 0; r < ROWS; r++) begin
      skewed[r][0] <= activations[r*(ACTIVATION_BITS+1)+:ACTIVATION_BITS+1];
      for (int d = 1; d < ROWS; d++) skewed[r][d] <= skewed[r][d-1];
    end
  end

  always_ff @(posedge clock) begin
    for (int r = 0; r < ROWS; r++) begin
      for (int c = 0; c < COLUMNS; c++) begin
        moving[r][c] <= entering[r][c];
        partial[r][c] <= (r == 0 ? sum_t'(0) : partial[(r+ROWS-1)%ROWS][c])
            + sum_t'(weight[r][c]) * sum_t'(entering[r][c]);
      end
    end
  end

  always_ff @(posedge clock) begin
    for (int c = 0; c < COLUMNS; c++) begin
      aligned[c][0] <= partial[ROWS-1][c];
      for (int d = 1; d < COLUMNS; d++) aligned[c][d] <= aligned[c][d-1];
    end
  end

  always_ff @(posedge clock) begin
    if (reset) valid <= '0;
    else valid <= LATENCY'({valid, activation_valid});
  end

endmodule
