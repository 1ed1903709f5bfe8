// Everything that is not a product with weights. There are LANES lanes, and each has
//   elementwise unit -> requantize unit -> lookup unit.
// A unit that a pass does not need gets values without effect: coefficient 1, multiplier 1 and
// shift 0, or no lookup.
//
// Timing: six cycles from the last tap to the write, one tap per cycle.

module vector_unit
  import descriptor_package::*;
#(
    parameter int LANES = 16,
    parameter int ACCUMULATOR_BITS = 32,
    parameter int MULTIPLIER_BITS = 16,
    parameter int PARAMETER_BITS = 32,
    parameter int TABLE_DEPTH = 1024,
    parameter int ADDRESS_BITS = 16
) (
    input  logic                              clock,
    input  logic                              reset,
    /* verilator lint_off UNUSEDSIGNAL */  // other units read the other fields, and the
                                           // parameters' bits above the multiplier
    input  descriptor_t                       descriptor,
    input  logic [  LANES*PARAMETER_BITS-1:0] parameters,  // per lane: multiplier, 6 bits of shift
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic                              valid,
    input  logic                              first_tap,
    input  logic                              last_tap,
    input  logic [          ADDRESS_BITS-1:0] address,
    input  logic [LANES*ACCUMULATOR_BITS-1:0] values,
    input  logic [LANES*ACCUMULATOR_BITS-1:0] previous,  // the old content of the output memory
    output logic                              write_valid,
    output logic [          ADDRESS_BITS-1:0] write_address,
    output logic [LANES*ACCUMULATOR_BITS-1:0] write_word,
    input  logic [                      31:0] row_address,  // the row unit's port to the tables
    output logic [      ACCUMULATOR_BITS-1:0] row_entry
);

  localparam int LATENCY = 6;

  typedef logic signed [ACCUMULATOR_BITS-1:0] lane_t;

  logic [LANES*ACCUMULATOR_BITS-1:0] rescaled;
  logic [LATENCY-1:0] valids;
  logic [ADDRESS_BITS-1:0] addresses[LATENCY];

  for (genvar lane = 0; lane < LANES; lane++) begin : lanes
    lane_t combined, result;

    elementwise_unit #(
        .ACCUMULATOR_BITS(ACCUMULATOR_BITS)
    ) elementwise (
        .clock,
        .first_tap,
        .combine(descriptor.combine),
        .value(values[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]),
        .start(descriptor.start_from_memory ? previous[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]
                                            : lane_t'(descriptor.start)),
        .offset(lane_t'(descriptor.offset)),
        .coefficient(lane_t'(descriptor.coefficient)),
        .result(combined)
    );

    requantize_unit #(
        .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
        .MULTIPLIER_BITS (MULTIPLIER_BITS)
    ) requantize (
        .clock,
        .rounding(descriptor.rounding),
        .value(combined),
        .multiplier(parameters[lane*PARAMETER_BITS+6+:MULTIPLIER_BITS]),
        .shift(parameters[lane*PARAMETER_BITS+:6]),
        .zero_point(lane_t'(descriptor.zero_point)),
        .low(lane_t'(descriptor.low)),
        .high(lane_t'(descriptor.high)),
        .result
    );

    assign rescaled[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] = result;
  end

  lookup_unit #(
      .LANES(LANES),
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .DEPTH(TABLE_DEPTH)
  ) tables (
      .clock,
      .enable (descriptor.lookup),
      .values (rescaled),
      .results(write_word),
      .row_address,
      .row_entry
  );

  always_ff @(posedge clock) begin
    if (reset) valids <= '0;
    else valids <= {valids[LATENCY-2:0], valid && last_tap};
  end

  always_ff @(posedge clock) begin
    addresses[0] <= address;
    for (int stage = 1; stage < LATENCY; stage++) addresses[stage] <= addresses[stage-1];
  end

  assign write_valid = valids[LATENCY-1];
  assign write_address = addresses[LATENCY-1];

endmodule
