// Tables of functions of one number. If `enable` is high, every lane's value is the address of a
// table entry, and the entry replaces the value. Otherwise the values pass unchanged. The row unit
// has a port of its own.
//
// All tables of a program lie one behind the other in one memory that has a read port for each
// lane. A device without such memories holds one copy for each lane. All entries are 0 at first.
//
// Timing: one cycle of latency, one word per cycle.

module lookup_unit #(
    parameter int LANES = 16,
    parameter int ACCUMULATOR_BITS = 32,
    parameter int DEPTH = 1024
) (
    input  logic                              clock,
    input  logic                              enable,
    input  logic [LANES*ACCUMULATOR_BITS-1:0] values,
    output logic [LANES*ACCUMULATOR_BITS-1:0] results,
    /* verilator lint_off UNUSEDSIGNAL */  // an address is wider than most tables need
    input  logic [                      31:0] row_address,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic [      ACCUMULATOR_BITS-1:0] row_entry
);

  localparam int INDEX_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;

  logic [ACCUMULATOR_BITS-1:0] entries[DEPTH];

  initial for (int entry = 0; entry < DEPTH; entry++) entries[entry] = '0;

  always_ff @(posedge clock) begin
    for (int lane = 0; lane < LANES; lane++) begin
      results[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] <=
          enable ? entries[INDEX_BITS'(values[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS])]
                 : values[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS];
    end
    row_entry <= entries[INDEX_BITS'(row_address)];
  end

endmodule
