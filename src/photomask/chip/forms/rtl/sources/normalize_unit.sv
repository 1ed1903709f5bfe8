// Normalizes one row, one element per cycle, in three walks over the row:
//   0  sum = sum of the elements (this walk is left out if the row is not centred)
//   1  squares = epsilon + sum of deviation**2;  deviation = coefficient * element - sum if the row
//      is centred, otherwise deviation = element
//   2  result = floor(deviation * reciprocal / 2**shift + 1/2) * gain + bias
// Between walks 1 and 2, `squares` is multiplied by 4**half_shift so that it has 47 or 48 bits
// (`scaled`). Then its square root is taken, and reciprocal = floor(2**47 / root). The shift is
// 47 - half_shift - fraction_bits. The descriptor gives the offset and the coefficient, and its
// field `start` is epsilon. Each channel has its own gain and bias.
//
// Timing: `begin_row` comes before a row. A result follows four cycles after its element. `scaled`
// is valid three cycles after the last element of walk 1.

module normalize_unit
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
    input  logic signed [ACCUMULATOR_BITS-1:0] gain,
    input  logic signed [ACCUMULATOR_BITS-1:0] bias,
    output logic        [                47:0] scaled,
    /* verilator lint_off UNUSEDSIGNAL */  // the highest bits of this quotient are always 0
    input  logic        [   QUOTIENT_BITS-1:0] reciprocal,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic signed [ACCUMULATOR_BITS-1:0] result
);

  localparam int ROOT_SHIFT = 47;

  typedef logic signed [ACCUMULATOR_BITS-1:0] lane_t;
  typedef logic signed [31:0] deviation_t;  // its square fits 62 bits
  typedef logic signed [63:0] wide_t;

  wide_t element, sum, product, normal;
  deviation_t deviation;
  logic [63:0] squares;
  logic squared;
  logic signed [6:0] bits, half_shift, half_shift_now;
  logic [5:0] shift;
  lane_t gains[3], biases[3];  // they travel through the pipeline beside their elements

  assign element = wide_t'(value) + wide_t'(descriptor.offset);

  always_ff @(posedge clock) begin
    if (begin_row) sum <= '0;
    else if (valid && walk == 0) sum <= sum + element;
  end

  always_ff @(posedge clock) begin
    deviation <= deviation_t'(element * descriptor.coefficient - sum);
    squared <= valid && walk == 1;
    if (begin_row) squares <= descriptor.start;
    else if (squared) squares <= squares + 64'(wide_t'(deviation) * wide_t'(deviation));
  end

  always_comb begin
    bits = '0;
    for (int place = 0; place < 62; place++) if (squares[place]) bits = 7'(place + 1);
    half_shift_now = (7'sd48 - bits) >>> 1;
  end

  always_ff @(posedge clock) begin
    half_shift <= half_shift_now;
    scaled <= half_shift_now < 0 ? 48'(squares >> (-half_shift_now * 2))
                                 : 48'(squares << (half_shift_now * 2));
  end

  assign shift = 6'(ROOT_SHIFT - 32'(half_shift) - 32'(descriptor.fraction_bits));

  always_ff @(posedge clock) begin
    product <= wide_t'(deviation) * wide_t'($signed({1'b0, reciprocal[24:0]}));
    normal <= (product + (wide_t'(1) <<< (shift - 6'd1))) >>> shift;
    gains <= '{gain, gains[0], gains[1]};
    biases <= '{bias, biases[0], biases[1]};
    result <= lane_t'(normal * wide_t'(gains[2]) + wide_t'(biases[2]));
  end

endmodule
