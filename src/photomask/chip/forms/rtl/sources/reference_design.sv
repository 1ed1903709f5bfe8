// The reference design: a sequencer, an address generator, two memories, the array, the vector unit
// and the row unit.
//
//   descriptors --> sequencer --> address generator --> activation or accumulator memory
//   weights, parameters                                    |                    ^
//                                                          v                    |
//                          MATRIX:  systolic_array --> accumulator unit --------+
//                          VECTOR:  vector_unit --------------------------------+
//                          SOFTMAX, NORMALIZE:  row_unit -----------------------+
//                          TILE:  the array's weights
//
// A word of either memory has LANES lanes, with one channel per lane. LANES must be a multiple of
// ROWS, of COLUMNS and of the array's inputs, ROWS / KEPT * GROUP. A dense array has KEPT = GROUP =
// 1, and a sparse one takes KEPT of GROUP weights with their positions. The constants lie in
// `descriptors`, `weights`, `parameters` and `vector.tables`. The testbench fills these memories
// from the program's images.
//
// Timing: the design runs as soon as `reset` is low. `step_done` is high for one cycle after each
// step, and `done` is high at the end.

module reference_design
  import descriptor_package::*;
  import pattern_package::*;
#(
    parameter int ROWS = 16,
    parameter int COLUMNS = 16,
    parameter int LANES = 16,
    parameter int WEIGHT_BITS = 8,
    parameter int ACTIVATION_BITS = 8,
    parameter int ACCUMULATOR_BITS = 32,
    parameter int MULTIPLIER_BITS = 16,
    parameter int KEPT = 1,
    parameter int GROUP = 1,
    parameter int ACTIVATION_DEPTH = 1024,
    parameter int ACCUMULATOR_DEPTH = 1024,
    parameter int WEIGHT_DEPTH = 1024,
    parameter int PARAMETER_DEPTH = 1024,
    parameter int TABLE_DEPTH = 1024,
    parameter int DESCRIPTOR_DEPTH = 1024
) (
    input  logic        clock,
    input  logic        reset,
    output logic        step_done,
    output logic [31:0] step,
    output logic        done,
    output logic [31:0] cycles
);

  localparam int DEEPEST =
      ACTIVATION_DEPTH > ACCUMULATOR_DEPTH ? ACTIVATION_DEPTH : ACCUMULATOR_DEPTH;
  localparam int ADDRESS_BITS = DEEPEST > 1 ? $clog2(DEEPEST) : 1;
  // A lane holds a bias, or a multiplier of up to 31 bits and a shift of 6 bits. The images have
  // this width, too.
  localparam int PARAMETER_BITS = ACCUMULATOR_BITS > 40 ? ACCUMULATOR_BITS : 40;

  localparam int INPUTS = ROWS / KEPT * GROUP;
  localparam int WEIGHT_WORD_BITS = COLUMNS * (KEPT * WEIGHT_BITS + index_bits(KEPT, GROUP));

  typedef logic signed [ACTIVATION_BITS:0] activation_t;
  typedef logic signed [ACCUMULATOR_BITS-1:0] accumulator_t;

  // ---- Control ----

  descriptor_t descriptor;
  logic [31:0] descriptor_address, weight_address;
  logic weight_read, stream_start, stream_finished, result_issued, result_written;
  logic is_matrix, is_tile, is_row, map_finished, row_finished;

  assign step = descriptor.step;
  assign is_matrix = descriptor.operation == MATRIX;
  assign is_tile = descriptor.operation == TILE;
  assign is_row = descriptor.operation == SOFTMAX || descriptor.operation == NORMALIZE;
  assign stream_finished = is_row ? row_finished : map_finished;

  constant_memory #(
      .WORD_BITS($bits(descriptor_t)),
      .DEPTH(DESCRIPTOR_DEPTH)
  ) descriptors (
      .clock,
      .read_address(descriptor_address),
      .read_word(descriptor)
  );

  sequencer #(
      .WEIGHT_WORDS(ROWS / KEPT)
  ) control (
      .clock,
      .reset,
      .descriptor,
      .descriptor_address,
      .weight_address,
      .weight_read,
      .stream_start,
      .stream_finished,
      .result_issued,
      .result_written,
      .step_done,
      .done,
      .cycles
  );

  logic [WEIGHT_WORD_BITS-1:0] weight_word;
  logic [LANES*PARAMETER_BITS-1:0] parameter_word;
  logic [31:0] row_parameter_address;

  constant_memory #(
      .WORD_BITS(WEIGHT_WORD_BITS),
      .DEPTH(WEIGHT_DEPTH)
  ) weights (
      .clock,
      .read_address(weight_address),
      .read_word(weight_word)
  );

  constant_memory #(
      .WORD_BITS(LANES * PARAMETER_BITS),
      .DEPTH(PARAMETER_DEPTH)
  ) parameters (
      .clock,
      .read_address(is_row ? row_parameter_address : descriptor.parameter_address),
      .read_word(parameter_word)
  );

  // ---- Reading: one word of the input per cycle ----

  logic stream_valid, in_map, first_tap, last_tap;
  logic [ADDRESS_BITS-1:0] stream_address, stream_output_address, row_address, read_address;
  logic read_valid, read_in_map, read_first_tap, read_last_tap;
  logic [ADDRESS_BITS-1:0] read_output_address;
  logic [LANES*ACTIVATION_BITS-1:0] activation_word;
  logic [LANES*ACCUMULATOR_BITS-1:0] accumulator_word, previous_word;
  logic [LANES*ACCUMULATOR_BITS-1:0] operands, aligned;
  logic [INPUTS*(ACTIVATION_BITS+1)-1:0] array_activations;
  logic [COLUMNS*WEIGHT_BITS-1:0] computed_weights;

  address_generator #(
      .ADDRESS_BITS(ADDRESS_BITS)
  ) addresses (
      .clock,
      .reset,
      .start(stream_start && !is_row),
      .descriptor,
      .valid(stream_valid),
      .input_address(stream_address),
      .in_map,
      .first_tap,
      .last_tap,
      .output_address(stream_output_address),
      .finished(map_finished)
  );

  assign result_issued = stream_valid && last_tap && !is_tile;
  assign read_address = is_row ? row_address : stream_address;

  always_ff @(posedge clock) begin
    read_valid <= stream_valid && !reset;
    read_in_map <= in_map || is_row;
    read_first_tap <= first_tap;
    read_last_tap <= last_tap;
    read_output_address <= stream_output_address;
  end

  // This part inserts padding, extends signs, and rotates channels to other lanes.
  always_comb begin
    for (int lane = 0; lane < LANES; lane++) begin
      if (!read_in_map) begin
        operands[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] =
            accumulator_t'(descriptor.padding_value);
      end else if (descriptor.input_in_accumulators) begin
        operands[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] =
            accumulator_word[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS];
      end else begin
        operands[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] = accumulator_t'(activation_t'({
          descriptor.input_signed && activation_word[lane*ACTIVATION_BITS+ACTIVATION_BITS-1],
          activation_word[lane*ACTIVATION_BITS+:ACTIVATION_BITS]
        }));
      end
    end
    for (int lane = 0; lane < LANES; lane++) begin
      aligned[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] = operands[
          ((lane+LANES-32'(descriptor.rotation))%LANES)*ACCUMULATOR_BITS+:ACCUMULATOR_BITS];
    end
    // In a dense pass, row r reads lane r: the first KEPT inputs of a group get KEPT lanes. The
    // remainder (%) keeps an index legal in the branch that is not taken.
    for (int i = 0; i < INPUTS; i++) begin
      array_activations[i*(ACTIVATION_BITS+1)+:ACTIVATION_BITS+1] =
          (descriptor.dense && i % GROUP < KEPT
              ? aligned[(i/GROUP*KEPT+i%GROUP)%LANES*ACCUMULATOR_BITS+:ACTIVATION_BITS+1]
              : aligned[i*ACCUMULATOR_BITS+:ACTIVATION_BITS+1])
          + activation_t'(descriptor.offset);
    end
    for (int column = 0; column < COLUMNS; column++) begin
      computed_weights[column*WEIGHT_BITS+:WEIGHT_BITS] = WEIGHT_BITS'(
          $signed(aligned[column*ACCUMULATOR_BITS+:ACCUMULATOR_BITS])
          + accumulator_t'(descriptor.offset));
    end
  end

  // ---- MATRIX and TILE ----

  logic word_valid, weight_valid, sum_valid, sums_write_valid;
  logic [COLUMNS*KEPT*WEIGHT_BITS-1:0] array_weights;
  logic [COLUMNS*KEPT*position_bits(GROUP)-1:0] array_positions;
  logic [COLUMNS*ACCUMULATOR_BITS-1:0] sums;
  logic [ADDRESS_BITS-1:0] sums_read_address, sums_write_address;
  logic [LANES*ACCUMULATOR_BITS-1:0] sums_write_word;

  always_ff @(posedge clock) word_valid <= weight_read && !reset;

  weight_loader #(
      .COLUMNS(COLUMNS),
      .WEIGHT_BITS(WEIGHT_BITS),
      .KEPT(KEPT),
      .GROUP(GROUP)
  ) loader (
      .clock,
      .start(stream_start),
      .word_valid,
      .word(weight_word),
      .row_valid(read_valid && is_tile),
      .row(computed_weights),
      .weight_valid,
      .weights(array_weights),
      .positions(array_positions)
  );

  systolic_array #(
      .ROWS(ROWS),
      .COLUMNS(COLUMNS),
      .WEIGHT_BITS(WEIGHT_BITS),
      .ACTIVATION_BITS(ACTIVATION_BITS),
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .KEPT(KEPT),
      .GROUP(GROUP)
  ) array (
      .clock,
      .reset,
      .weight_valid,
      .weights(array_weights),
      .positions(array_positions),
      .activation_valid(read_valid && is_matrix),
      .activations(array_activations),
      .sum_valid,
      .sums
  );

  accumulator_unit #(
      .LANES(LANES),
      .COLUMNS(COLUMNS),
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .PARAMETER_BITS(PARAMETER_BITS),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) accumulators (
      .clock,
      .reset,
      .start(stream_start),
      .descriptor,
      .parameters(parameter_word),
      .sum_valid,
      .sums,
      .read_address(sums_read_address),
      .previous(previous_word),
      .write_valid(sums_write_valid),
      .write_address(sums_write_address),
      .write_word(sums_write_word)
  );

  // ---- VECTOR ----

  logic vector_write_valid;
  logic [31:0] table_address;
  logic [ACCUMULATOR_BITS-1:0] table_entry;
  logic [ADDRESS_BITS-1:0] vector_write_address;
  logic [LANES*ACCUMULATOR_BITS-1:0] vector_write_word;

  vector_unit #(
      .LANES(LANES),
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .MULTIPLIER_BITS(MULTIPLIER_BITS),
      .PARAMETER_BITS(PARAMETER_BITS),
      .TABLE_DEPTH(TABLE_DEPTH),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) vector (
      .clock,
      .reset,
      .descriptor,
      .parameters(parameter_word),
      .valid(read_valid && !is_matrix && !is_tile),
      .first_tap(read_first_tap),
      .last_tap(read_last_tap),
      .address(read_output_address),
      .values(aligned),
      .previous(previous_word),
      .write_valid(vector_write_valid),
      .write_address(vector_write_address),
      .write_word(vector_write_word),
      .row_address(table_address),
      .row_entry(table_entry)
  );

  // ---- SOFTMAX and NORMALIZE ----

  logic row_write_valid;
  logic [ADDRESS_BITS-1:0] row_write_address;
  logic [LANES-1:0] row_write_lanes;
  logic [LANES*ACCUMULATOR_BITS-1:0] row_write_word;

  row_unit #(
      .LANES(LANES),
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .PARAMETER_BITS(PARAMETER_BITS),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) rows (
      .clock,
      .reset,
      .start(stream_start && is_row),
      .descriptor,
      .parameters(parameter_word),
      .read_address(row_address),
      .values(aligned),
      .parameter_address(row_parameter_address),
      .table_address,
      .table_entry,
      .write_valid(row_write_valid),
      .write_address(row_write_address),
      .write_lanes(row_write_lanes),
      .write_word(row_write_word),
      .finished(row_finished)
  );

  // ---- Writing: one word of the output per cycle ----

  logic memory_write_valid;
  logic [LANES-1:0] write_lanes;
  logic [ADDRESS_BITS-1:0] write_address;
  logic [LANES*ACCUMULATOR_BITS-1:0] write_word;
  logic [LANES*ACTIVATION_BITS-1:0] narrow_word;

  assign result_written = sums_write_valid || vector_write_valid;
  assign memory_write_valid = result_written || row_write_valid;

  always_comb begin
    if (is_row) begin
      write_address = row_write_address;
      write_word = row_write_word;
    end else begin
      write_address = is_matrix ? sums_write_address : vector_write_address;
      write_word = is_matrix ? sums_write_word : vector_write_word;
    end
    for (int lane = 0; lane < LANES; lane++) begin
      write_lanes[lane] = is_row ? row_write_lanes[lane]
          : lane >= 32'(descriptor.first_lane) && lane <= 32'(descriptor.last_lane);
      narrow_word[lane*ACTIVATION_BITS+:ACTIVATION_BITS] =
          write_word[lane*ACCUMULATOR_BITS+:ACTIVATION_BITS];
    end
  end

  memory_bank #(
      .LANES(LANES),
      .LANE_BITS(ACTIVATION_BITS),
      .DEPTH(ACTIVATION_DEPTH),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) activation_memory (
      .clock,
      .first_read_address(read_address),
      .first_read_word(activation_word),
      .second_read_address('0),
      /* verilator lint_off PINCONNECTEMPTY */  // only accumulators are read twice per cycle
      .second_read_word(),
      /* verilator lint_on PINCONNECTEMPTY */
      .write_valid(memory_write_valid && !descriptor.output_in_accumulators),
      .write_address,
      .write_lanes,
      .write_word(narrow_word)
  );

  memory_bank #(
      .LANES(LANES),
      .LANE_BITS(ACCUMULATOR_BITS),
      .DEPTH(ACCUMULATOR_DEPTH),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) accumulator_memory (
      .clock,
      .first_read_address(read_address),
      .first_read_word(accumulator_word),
      .second_read_address(is_matrix ? sums_read_address : stream_output_address),
      .second_read_word(previous_word),
      .write_valid(memory_write_valid && descriptor.output_in_accumulators),
      .write_address,
      .write_lanes,
      .write_word
  );

endmodule
