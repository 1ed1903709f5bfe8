// root = floor(sqrt(radicand)), one bit a cycle from the highest on.
//
// remainder = radicand so far - root * root is kept; the next two bits of the radicand decide
// whether the next bit of the root is 1.
//
// Timing: `start` for one cycle while nothing runs; ROOT_BITS cycles follow, `done` is high in the
// last of them, and `root` holds from the next on.

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
  logic [STEP_BITS-1:0] left;  // bits of the root still to come
  logic [2*ROOT_BITS-1:0] waiting;
  logic [ROOT_BITS-1:0] remainder;  // fits until the root is whole
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
