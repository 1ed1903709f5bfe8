// One lane of rescaling: result = clamp(round(value * multiplier / 2**shift) + zero_point, low,
// high).
//
// `rounding` selects one of five modes. Each is exact for every product of PRODUCT_BITS bits:
//   HALF_UP    floor(v + 1/2)
//   HALF_EVEN  to the nearest integer, ties to the even neighbour
//   HALF_AWAY  to the nearest integer, ties away from zero
//   TRUNCATE   floor(v)
//   DOUBLE     TOSA's double rounding: for a shift above 31, first adds 2**30 with the product's
//              sign, then rounds half up
//
// Timing: three cycles (product; rounding; zero point and saturation), one value per cycle.

module requantize_unit
  import descriptor_package::*;
#(
    parameter int ACCUMULATOR_BITS = 32,
    parameter int MULTIPLIER_BITS  = 16,
    parameter int PRODUCT_BITS     = 64
) (
    input  logic                               clock,
    input  rounding_t                          rounding,
    input  logic signed [ACCUMULATOR_BITS-1:0] value,
    input  logic        [ MULTIPLIER_BITS-1:0] multiplier,
    input  logic        [                 5:0] shift,
    input  logic signed [ACCUMULATOR_BITS-1:0] zero_point,
    input  logic signed [ACCUMULATOR_BITS-1:0] low,
    input  logic signed [ACCUMULATOR_BITS-1:0] high,
    output logic signed [ACCUMULATOR_BITS-1:0] result
);

  typedef logic signed [PRODUCT_BITS-1:0] product_t;

  product_t product, half, nudge, biased, up, rounded, scaled, moved;
  logic tie;

  always_ff @(posedge clock) begin
    product <= product_t'(value) * product_t'($signed({1'b0, multiplier}));
  end

  always_comb begin
    half = shift == 0 ? '0 : product_t'(1) <<< (shift - 6'd1);
    nudge = shift > 31 ? (product < 0 ? -(product_t'(1) <<< 30) : product_t'(1) <<< 30) : '0;
    biased = product + half;
    up = biased >>> shift;
    tie = shift != 0 && (up <<< shift) == biased;
    case (rounding)
      HALF_EVEN: rounded = tie && up[0] ? up - 1 : up;
      HALF_AWAY: rounded = product < 0 ? -((half - product) >>> shift) : up;
      TRUNCATE: rounded = product >>> shift;
      DOUBLE: rounded = (biased + nudge) >>> shift;
      default: rounded = up;
    endcase
  end

  always_ff @(posedge clock) scaled <= rounded;

  assign moved = scaled + product_t'(zero_point);

  always_ff @(posedge clock) begin
    if (moved < product_t'(low)) result <= low;
    else if (moved > product_t'(high)) result <= high;
    else result <= ACCUMULATOR_BITS'(moved);
  end

endmodule
