// Softmax and normalization, which need whole rows. The unit reads each row in up to three walks,
// one element per cycle, and writes the results of the last walk lane by lane.
//
// A row's elements lie along the lanes of words at a distance of `input_width`. Row r begins at
// word `input_address + r`. Its results begin at word `output_address + r`, at the same distance.
// The unit computes `output_width` rows of `kernel_width` elements one after the other. Between the
// second walk and the third, a sequential divider inverts the row's sum, or the root of its sum of
// squares.
//
// Timing: a row takes walks * (2 * words + elements + 4) + inversion cycles. A walk takes 2 cycles
// to read each word, and 4 cycles until its last element has passed. SOFTMAX takes 3 walks and an
// inversion of reciprocal_bits + 1 cycles. NORMALIZE takes 3 walks, or 2 if not centred, and an
// inversion of 73 cycles. `finished` is high in the cycle in which the last result is written.

module row_unit
  import descriptor_package::*;
#(
    parameter int LANES = 16,
    parameter int ACCUMULATOR_BITS = 32,
    parameter int PARAMETER_BITS = 40,
    parameter int ADDRESS_BITS = 16
) (
    input  logic                              clock,
    input  logic                              reset,
    input  logic                              start,
    /* verilator lint_off UNUSEDSIGNAL */  // other units read the other fields, and the
                                           // parameters' bits above a gain
    input  descriptor_t                       descriptor,
    input  logic [  LANES*PARAMETER_BITS-1:0] parameters,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic [          ADDRESS_BITS-1:0] read_address,
    input  logic [LANES*ACCUMULATOR_BITS-1:0] values,
    output logic [                      31:0] parameter_address,  // of gains, then of biases
    output logic [                      31:0] table_address,
    input  logic [      ACCUMULATOR_BITS-1:0] table_entry,
    output logic                              write_valid,
    output logic [          ADDRESS_BITS-1:0] write_address,
    output logic [                 LANES-1:0] write_lanes,
    output logic [LANES*ACCUMULATOR_BITS-1:0] write_word,
    output logic                              finished
);

  localparam int LATENCY = 4;
  localparam int QUOTIENT_BITS = 56;
  localparam int LANE_BITS = LANES > 1 ? $clog2(LANES) : 1;
  localparam logic [5:0] ROOT_EXPONENT = 6'd47;

  typedef enum logic [2:0] {
    IDLE,
    READ,  // the memory gets the word's address
    HOLD,  // the word and the gains have arrived
    ELEMENTS,
    SETTLE,
    INVERT
  } state_t;

  state_t state;
  logic [1:0] walk, first_walk;
  logic [31:0] row, word, element;  // `word` counts the words of the row
  logic [ADDRESS_BITS-1:0] word_offset;
  logic [LANE_BITS-1:0] lane;
  logic [2:0] settled;
  logic is_softmax, last_element, last_row, walk_ends, row_begins;

  assign is_softmax = descriptor.operation == SOFTMAX;
  assign first_walk = is_softmax || descriptor.centred ? 2'd0 : 2'd1;
  assign last_element = element == descriptor.kernel_width - 1;
  assign last_row = row == descriptor.output_width - 1;
  assign walk_ends = state == SETTLE && settled == 3'(LATENCY - 1);
  assign row_begins = start || (walk_ends && walk == 2);
  assign finished = walk_ends && walk == 2 && last_row;

  // ---- The walk ----

  logic inverted;

  always_ff @(posedge clock) begin
    if (reset) begin
      state <= IDLE;
    end else begin
      case (state)
        IDLE: if (start) state <= READ;
        READ: state <= HOLD;
        HOLD: state <= ELEMENTS;
        ELEMENTS: begin
          if (last_element) state <= SETTLE;
          else if (lane == LANE_BITS'(LANES - 1)) state <= READ;
        end
        SETTLE: begin
          if (finished) state <= IDLE;
          else if (walk_ends) state <= walk == 1 ? INVERT : READ;
        end
        INVERT: if (inverted) state <= READ;
        default: ;
      endcase
    end
  end

  always_ff @(posedge clock) begin
    if (start) row <= '0;
    else if (row_begins) row <= row + 1;
    if (row_begins) walk <= first_walk;
    else if (walk_ends) walk <= walk + 1;
    if (state == SETTLE) settled <= settled + 1;
    else settled <= '0;
    if (start || walk_ends) begin
      word <= '0;
      word_offset <= '0;
      element <= '0;
      lane <= '0;
    end else if (state == ELEMENTS) begin
      element <= element + 1;
      if (lane == LANE_BITS'(LANES - 1)) begin
        lane <= '0;
        word <= word + 1;
        word_offset <= word_offset + ADDRESS_BITS'(descriptor.input_width);
      end else begin
        lane <= lane + 1;
      end
    end
  end

  assign read_address = ADDRESS_BITS'(descriptor.input_address + row) + word_offset;
  assign parameter_address =
      descriptor.parameter_address + 2 * word + (state == READ ? 32'd0 : 32'd1);

  // ---- One element ----

  logic valid;
  logic [LANES*ACCUMULATOR_BITS-1:0] gains;
  logic signed [ACCUMULATOR_BITS-1:0] value, gain, bias, portion, normal;

  assign valid = state == ELEMENTS;
  assign value = values[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS];
  assign gain = gains[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS];
  assign bias = parameters[lane*PARAMETER_BITS+:ACCUMULATOR_BITS];

  always_ff @(posedge clock) begin
    if (state == HOLD) begin
      for (int l = 0; l < LANES; l++) begin
        gains[l*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] <=
            parameters[l*PARAMETER_BITS+:ACCUMULATOR_BITS];
      end
    end
  end

  logic [QUOTIENT_BITS-1:0] total, reciprocal;
  logic [47:0] scaled;
  logic [23:0] root;
  logic rooted, root_ready;

  softmax_unit #(
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .QUOTIENT_BITS(QUOTIENT_BITS)
  ) softmax (
      .clock,
      .descriptor,
      .begin_row(row_begins),
      .valid,
      .walk,
      .value,
      .table_address,
      .table_entry,
      .total,
      .reciprocal,
      .result(portion)
  );

  normalize_unit #(
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .QUOTIENT_BITS(QUOTIENT_BITS)
  ) normalize (
      .clock,
      .descriptor,
      .begin_row(row_begins),
      .valid,
      .walk,
      .value,
      .gain,
      .bias,
      .scaled,
      .reciprocal,
      .result(normal)
  );

  // ---- The inversion ----

  logic invert;

  assign invert = walk_ends && walk == 1;

  square_root_unit #(
      .ROOT_BITS(24)
  ) square_root (
      .clock,
      .reset,
      .start(invert && !is_softmax),
      .radicand(scaled),
      .done(rooted),
      .root
  );

  always_ff @(posedge clock) root_ready <= rooted && !reset;

  reciprocal_unit #(
      .DIVISOR_BITS(QUOTIENT_BITS)
  ) divider (
      .clock,
      .reset,
      .start(is_softmax ? invert : root_ready),
      .exponent(is_softmax ? descriptor.reciprocal_bits : ROOT_EXPONENT),
      .divisor(is_softmax ? total : QUOTIENT_BITS'(root)),
      .done(inverted),
      .quotient(reciprocal)
  );

  // ---- Writing: the results of the last walk ----

  logic [LATENCY-1:0] valids;
  logic [ADDRESS_BITS-1:0] addresses[LATENCY];
  logic [LANE_BITS-1:0] lanes[LATENCY];

  always_ff @(posedge clock) begin
    if (reset) valids <= '0;
    else valids <= {valids[LATENCY-2:0], valid && walk == 2};
  end

  always_ff @(posedge clock) begin
    addresses[0] <= ADDRESS_BITS'(descriptor.output_address + row) + word_offset;
    lanes[0] <= lane;
    for (int stage = 1; stage < LATENCY; stage++) begin
      addresses[stage] <= addresses[stage-1];
      lanes[stage] <= lanes[stage-1];
    end
  end

  assign write_valid = valids[LATENCY-1];
  assign write_address = addresses[LATENCY-1];
  assign write_lanes = LANES'(1) << lanes[LATENCY-1];
  assign write_word = {LANES{is_softmax ? portion : normal}};

endmodule
