// root = floor(sqrt(radicand)), computed one bit per cycle from the highest bit on.
//
// The unit keeps remainder = (leading bits of the radicand) - root * root. The next two bits of the
// radicand decide whether the next bit of the root is 1.
//
// Timing: `start` is high for one cycle while no computation runs. The computation takes ROOT_BITS
// cycles. `done` is high in the last of them, and `root` is valid from the next cycle on.

module square_root_unit #(
    parameter int ROOT_BITS = 24
) (
    input  logic                   clock,
    input  logic                   reset,
    input  logic                   start,
    input  logic [2*ROOT_BITS-1:0] radicand,
    output logic                   done,
    output logic [  ROOT_BITS-1:0] root
);

  localparam int STEP_BITS = $clog2(ROOT_BITS) + 1;

  logic busy, fits;
  logic [STEP_BITS-1:0] left;  // the number of root bits that are still to be computed
  logic [2*ROOT_BITS-1:0] waiting;
  logic [ROOT_BITS-1:0] remainder;  // it always fits while bits of the root are missing
  logic [ROOT_BITS+1:0] trial, candidate;

  assign candidate = {root, 2'b01};
  assign trial = {remainder, waiting[2*ROOT_BITS-1-:2]};
  assign fits = trial >= candidate;
  assign done = busy && left == 1;

  always_ff @(posedge clock) begin
    if (reset || done) busy <= 1'b0;
    else if (start) busy <= 1'b1;
  end

  always_ff @(posedge clock) begin
    if (start) begin
      left <= STEP_BITS'(ROOT_BITS);
      waiting <= radicand;
      remainder <= '0;
      root <= '0;
    end else if (busy) begin
      left <= left - 1;
      waiting <= waiting << 2;
      remainder <= ROOT_BITS'(fits ? trial - candidate : trial);
      root <= ROOT_BITS'({root, fits});
    end
  end

endmodule
