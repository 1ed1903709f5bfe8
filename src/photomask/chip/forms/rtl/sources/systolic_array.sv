// A weight-stationary systolic array: sums[c] = sum over r of weight[r][c] * activation(r, c).
//
// In a dense array (KEPT = GROUP = 1), row r reads activation r. In a sparse array, KEPT rows form
// a group and read GROUP activations together: activation(r, c) is the one at position[r][c] of the
// GROUP activations that belong to the group r / KEPT. ROWS must be a multiple of KEPT.
//
// This is the module to replace by your own array. Your array must keep this contract:
//   - `weight_valid` is high for ROWS / KEPT cycles, which bring the weights of one tile, the last
//     group of rows first. `weights` and `positions` hold KEPT numbers for each column, that of the
//     group's first row first. Cycles without weights may lie between these cycles. No activation
//     enters during them, and none is inside the array. The positions of a dense array are 0.
//   - Each cycle in which `activation_valid` is high brings GROUP activations for each group of
//     rows. There is no back pressure.
//   - For each vector of activations, one vector of sums leaves with `sum_valid`, in the same
//     order, after any number of cycles.
// Column 0 and row 0 lie in the least significant bits. Weights are signed. Activations are signed
// and one bit wider than the activation memory, so that unsigned codes fit. Sums are exact modulo
// 2**ACCUMULATOR_BITS; it is proven that the program never leaves that range.
//
// Depthwise and grouped convolutions need no other array. Their tiles are zero outside the (block)
// diagonal.
//
// How this array works: it has ROWS / KEPT rows of cells, and a cell has KEPT multipliers. Weights
// shift down the columns. The activations of row r of the cells are delayed by r cycles and move
// one column to the right per cycle. Partial sums move one row of cells down per cycle. The sum of
// column c is delayed by COLUMNS - 1 - c cycles, so that all columns of a sum leave together.
//
// Timing: ROWS / KEPT + COLUMNS - 1 cycles from activations to sums, one vector per cycle.

module systolic_array
  import pattern_package::*;
#(
    parameter int ROWS = 16,
    parameter int COLUMNS = 16,
    parameter int WEIGHT_BITS = 8,
    parameter int ACTIVATION_BITS = 8,
    parameter int ACCUMULATOR_BITS = 32,
    parameter int KEPT = 1,
    parameter int GROUP = 1,
    localparam int CELLS = ROWS / KEPT,  // the rows of cells
    localparam int INPUTS = CELLS * GROUP,
    localparam int POSITION_BITS = position_bits(GROUP)
) (
    input  logic                                  clock,
    input  logic                                  reset,
    input  logic                                  weight_valid,
    input  logic [  COLUMNS*KEPT*WEIGHT_BITS-1:0] weights,
    /* verilator lint_off UNUSEDSIGNAL */  // the positions of a dense array are 0
    input  logic [COLUMNS*KEPT*POSITION_BITS-1:0] positions,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic                                  activation_valid,
    input  logic [INPUTS*(ACTIVATION_BITS+1)-1:0] activations,
    output logic                                  sum_valid,
    output logic [  COLUMNS*ACCUMULATOR_BITS-1:0] sums
);

  localparam int LATENCY = CELLS + COLUMNS - 1;

  typedef logic signed [WEIGHT_BITS-1:0] weight_t;
  typedef logic [POSITION_BITS-1:0] position_t;
  typedef logic signed [ACTIVATION_BITS:0] activation_t;
  typedef logic signed [ACCUMULATOR_BITS-1:0] sum_t;

  weight_t weight[ROWS][COLUMNS];
  activation_t skewed[INPUTS][CELLS];  // skewed[i][d]: activation i, d + 1 cycles old
  activation_t entering[INPUTS][COLUMNS];  // the activation that enters each cell from the left
  activation_t moving[INPUTS][COLUMNS];  // the activation that leaves each cell to the right
  sum_t products[CELLS][COLUMNS];  // the sum of the products of each cell
  sum_t partial[CELLS][COLUMNS];  // the sum that leaves each cell downwards
  sum_t aligned[COLUMNS][COLUMNS];  // aligned[c][d]: the sum of column c, d + 1 cycles old
  logic [LATENCY-1:0] valid;

  // Synthesis removes the delays that are not read here. The remainders (%) keep an index legal in
  // the branch that is not taken.
  always_comb begin
    for (int i = 0; i < INPUTS; i++) begin
      entering[i][0] = i < GROUP ? activations[i*(ACTIVATION_BITS+1)+:ACTIVATION_BITS+1]
                                 : skewed[i][(i/GROUP+CELLS-1)%CELLS];
      for (int c = 1; c < COLUMNS; c++) entering[i][c] = moving[i][c-1];
    end
    for (int c = 0; c < COLUMNS; c++) begin
      sums[c*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] =
          c == COLUMNS - 1 ? partial[CELLS-1][c] : aligned[c][(2*COLUMNS-2-c)%COLUMNS];
    end
    sum_valid = valid[LATENCY-1];
  end

  always_ff @(posedge clock) begin
    if (weight_valid) begin
      for (int c = 0; c < COLUMNS; c++) begin
        for (int s = 0; s < KEPT; s++) begin
          weight[s][c] <= weights[(c*KEPT+s)*WEIGHT_BITS+:WEIGHT_BITS];
        end
        for (int r = KEPT; r < ROWS; r++) weight[r][c] <= weight[r-KEPT][c];
      end
    end
  end

  if (GROUP == 1) begin : dense
    always_comb begin
      for (int r = 0; r < ROWS; r++) begin
        for (int c = 0; c < COLUMNS; c++) begin
          products[r][c] = sum_t'(weight[r][c]) * sum_t'(entering[r][c]);
        end
      end
    end
  end else begin : sparse
    position_t position[ROWS][COLUMNS];

    always_ff @(posedge clock) begin
      if (weight_valid) begin
        for (int c = 0; c < COLUMNS; c++) begin
          for (int s = 0; s < KEPT; s++) begin
            position[s][c] <= positions[(c*KEPT+s)*POSITION_BITS+:POSITION_BITS];
          end
          for (int r = KEPT; r < ROWS; r++) position[r][c] <= position[r-KEPT][c];
        end
      end
    end

    always_comb begin
      activation_t chosen;
      for (int r = 0; r < CELLS; r++) begin
        for (int c = 0; c < COLUMNS; c++) begin
          products[r][c] = '0;
          for (int s = 0; s < KEPT; s++) begin
            chosen = entering[r*GROUP][c];
            for (int p = 1; p < GROUP; p++) begin
              if (position[r*KEPT+s][c] == POSITION_BITS'(p)) chosen = entering[r*GROUP+p][c];
            end
            products[r][c] = products[r][c] + sum_t'(weight[r*KEPT+s][c]) * sum_t'(chosen);
          end
        end
      end
    end
  end

  always_ff @(posedge clock) begin
    for (int i = 0; i < INPUTS; i++) begin
      skewed[i][0] <= activations[i*(ACTIVATION_BITS+1)+:ACTIVATION_BITS+1];
      for (int d = 1; d < CELLS; d++) skewed[i][d] <= skewed[i][d-1];
      for (int c = 0; c < COLUMNS; c++) moving[i][c] <= entering[i][c];
    end
  end

  always_ff @(posedge clock) begin
    for (int r = 0; r < CELLS; r++) begin
      for (int c = 0; c < COLUMNS; c++) begin
        partial[r][c] <= (r == 0 ? sum_t'(0) : partial[(r+CELLS-1)%CELLS][c]) + products[r][c];
      end
    end
  end

  always_ff @(posedge clock) begin
    for (int c = 0; c < COLUMNS; c++) begin
      aligned[c][0] <= partial[CELLS-1][c];
      for (int d = 1; d < COLUMNS; d++) aligned[c][d] <= aligned[c][d-1];
    end
  end

  always_ff @(posedge clock) begin
    if (reset) valid <= '0;
    else valid <= LATENCY'({valid, activation_valid});
  end

endmodule
