// Computes one row's softmax, one element per cycle, in three walks over the row:
//   0  peak = the largest element
//   1  total = sum of the exponents;  exponent = table[min(peak - element, last entry)]
//   2  result = floor(exponent * reciprocal / 2**shift + 1/2)
// Here reciprocal = floor(2**reciprocal_bits / total), which is divided between walks 1 and 2, and
// shift = reciprocal_bits - fraction_bits. Elements below `low` of the descriptor are hidden: they
// do not count in the maximum or the sum, and their result is 0. In a row with hidden elements
// only, every exponent is 0, so the reciprocal does not matter.
//
// Timing: `begin_row` comes before a row. A table entry comes one cycle after its address, and a
// result four cycles after its element. `total` is valid two cycles after the last element of walk
// 1.

module softmax_unit
  import descriptor_package::*;
#(
    parameter int ACCUMULATOR_BITS = 32,
    parameter int QUOTIENT_BITS = 56
) (
    input  logic                               clock,
    /* verilator lint_off UNUSEDSIGNAL */  // other units read the other fields
    input  descriptor_t                        descriptor,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic                               begin_row,
    input  logic                               valid,
    input  logic        [                 1:0] walk,
    input  logic signed [ACCUMULATOR_BITS-1:0] value,
    output logic        [                31:0] table_address,
    input  logic        [ACCUMULATOR_BITS-1:0] table_entry,
    output logic        [   QUOTIENT_BITS-1:0] total,
    input  logic        [   QUOTIENT_BITS-1:0] reciprocal,
    output logic signed [ACCUMULATOR_BITS-1:0] result
);

  typedef logic signed [ACCUMULATOR_BITS-1:0] lane_t;
  typedef logic signed [ACCUMULATOR_BITS:0] distance_t;
  typedef logic [63:0] product_t;

  lane_t peak;
  distance_t distance, last_entry;
  product_t product;
  logic [QUOTIENT_BITS-1:0] exponent;
  logic [5:0] shift;
  logic seen;
  logic [1:0] seen_before, counted;  // delayed by the two cycles until the table's entry arrives

  assign seen = value >= lane_t'(descriptor.low);
  assign distance = distance_t'(peak) - distance_t'(value);
  assign last_entry = distance_t'(descriptor.high);
  assign exponent = seen_before[1] ? QUOTIENT_BITS'(table_entry) : '0;
  assign shift = descriptor.reciprocal_bits - descriptor.fraction_bits;

  always_ff @(posedge clock) begin
    if (begin_row) peak <= {1'b1, (ACCUMULATOR_BITS - 1)'(0)};
    else if (valid && walk == 0 && seen && value > peak) peak <= value;
  end

  always_ff @(posedge clock) begin
    table_address <= descriptor.parameter_address
        + 32'(distance > last_entry ? last_entry : distance);
    seen_before <= {seen_before[0], seen};
    counted <= {counted[0], valid && walk == 1};
  end

  always_ff @(posedge clock) begin
    if (begin_row) total <= '0;
    else if (counted[1]) total <= total + exponent;
  end

  always_ff @(posedge clock) begin
    product <= product_t'(exponent) * product_t'(reciprocal);
    result <= lane_t'((product + (product_t'(1) << (shift - 6'd1))) >> shift);
  end

endmodule
