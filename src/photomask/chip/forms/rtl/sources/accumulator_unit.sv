// Adds the array's sums to the accumulator memory, in the order in which they leave the array.
//
//   accumulators[output word k] = (start_from_memory ? old content : biases) + sums of vector k
//
// Every group of COLUMNS lanes gets the same COLUMNS sums. The lanes that the descriptor names say
// which group is written.
//
// Timing: `start` comes before the first sum. A sum is written two cycles after it arrives. The
// unit takes one vector per cycle.

module accumulator_unit
  import descriptor_package::*;
#(
    parameter int LANES = 16,
    parameter int COLUMNS = 16,
    parameter int ACCUMULATOR_BITS = 32,
    parameter int PARAMETER_BITS = 32,
    parameter int ADDRESS_BITS = 16
) (
    input  logic                                clock,
    input  logic                                reset,
    input  logic                                start,
    /* verilator lint_off UNUSEDSIGNAL */  // other units read the other fields, and the
                                           // parameters' bits above a bias
    input  descriptor_t                         descriptor,
    input  logic [    LANES*PARAMETER_BITS-1:0] parameters,  // the bias of each lane
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic                                sum_valid,
    input  logic [COLUMNS*ACCUMULATOR_BITS-1:0] sums,
    output logic [            ADDRESS_BITS-1:0] read_address,
    input  logic [  LANES*ACCUMULATOR_BITS-1:0] previous,
    output logic                                write_valid,
    output logic [            ADDRESS_BITS-1:0] write_address,
    output logic [  LANES*ACCUMULATOR_BITS-1:0] write_word
);

  logic waiting_valid;
  logic [ADDRESS_BITS-1:0] waiting_address;
  logic [COLUMNS*ACCUMULATOR_BITS-1:0] waiting;

  always_ff @(posedge clock) begin
    if (start) read_address <= ADDRESS_BITS'(descriptor.output_address);
    else if (sum_valid) read_address <= read_address + ADDRESS_BITS'(descriptor.output_step);
  end

  // The sums wait here for one cycle, while the memory reads.
  always_ff @(posedge clock) begin
    waiting_valid <= sum_valid && !reset;
    waiting_address <= read_address;
    waiting <= sums;
  end

  always_ff @(posedge clock) begin
    write_valid <= waiting_valid && !reset;
    write_address <= waiting_address;
    for (int lane = 0; lane < LANES; lane++) begin
      write_word[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] <=
          (descriptor.start_from_memory ? previous[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]
                                        : parameters[lane*PARAMETER_BITS+:ACCUMULATOR_BITS])
          + waiting[(lane%COLUMNS)*ACCUMULATOR_BITS+:ACCUMULATOR_BITS];
    end
  end

endmodule
