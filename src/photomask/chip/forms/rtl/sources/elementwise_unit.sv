// One lane of everything that combines numbers: weighted sums, products, maxima, sums over windows.
//
//   scaled = (value + offset) * coefficient
//   result = combine(... combine(combine(start, scaled of tap 0), scaled of tap 1) ...)
//
// `combine` is a sum, a product or a maximum. `start` is a constant of the descriptor, or the old
// content of the output memory, which is how a second operand comes in. All arithmetic is modulo
// 2**ACCUMULATOR_BITS; it is proven that the program never leaves that range.
//
// Timing: two cycles from the last tap to the result, one tap per cycle.

module elementwise_unit
  import descriptor_package::*;
#(
    parameter int ACCUMULATOR_BITS = 32
) (
    input  logic                               clock,
    input  logic                               first_tap,
    input  combine_t                           combine,
    input  logic signed [ACCUMULATOR_BITS-1:0] value,
    input  logic signed [ACCUMULATOR_BITS-1:0] start,
    input  logic signed [ACCUMULATOR_BITS-1:0] offset,
    input  logic signed [ACCUMULATOR_BITS-1:0] coefficient,
    output logic signed [ACCUMULATOR_BITS-1:0] result
);

  logic signed [ACCUMULATOR_BITS-1:0] scaled, start_of_scaled, carried;
  logic first_of_scaled;

  always_ff @(posedge clock) begin
    scaled <= (value + offset) * coefficient;
    start_of_scaled <= start;
    first_of_scaled <= first_tap;
  end

  assign carried = first_of_scaled ? start_of_scaled : result;

  always_ff @(posedge clock) begin
    case (combine)
      MAXIMUM: result <= scaled > carried ? scaled : carried;
      MULTIPLY: result <= carried * scaled;
      default: result <= carried + scaled;
    endcase
  end

endmodule
