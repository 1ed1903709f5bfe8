// quotient = floor(2**exponent / divisor), computed one bit per cycle from the highest bit on.
//
// A divisor of 0 gives a quotient without meaning.
//
// Timing: `start` is high for one cycle while no division runs. The division takes exponent + 1
// cycles. `done` is high in the last of them, and `quotient` is valid from the next cycle on.

module reciprocal_unit #(
    parameter int DIVISOR_BITS = 56
) (
    input  logic                    clock,
    input  logic                    reset,
    input  logic                    start,
    input  logic [             5:0] exponent,
    input  logic [DIVISOR_BITS-1:0] divisor,
    output logic                    done,
    output logic [DIVISOR_BITS-1:0] quotient
);

  logic busy, fits;
  logic [5:0] position;  // the position of the quotient's bit, counted from the lowest bit
  logic [DIVISOR_BITS:0] remainder, rest;  // starts with the dividend's 1; its zeros are shifted in

  assign fits = remainder >= (DIVISOR_BITS + 1)'(divisor);
  assign rest = fits ? remainder - (DIVISOR_BITS + 1)'(divisor) : remainder;
  assign done = busy && position == 0;

  always_ff @(posedge clock) begin
    if (reset || done) busy <= 1'b0;
    else if (start) busy <= 1'b1;
  end

  always_ff @(posedge clock) begin
    if (start) begin
      position  <= exponent;
      remainder <= (DIVISOR_BITS + 1)'(1);
      quotient  <= '0;
    end else if (busy) begin
      position  <= position - 1;
      remainder <= rest << 1;
      quotient  <= DIVISOR_BITS'({quotient, fits});
    end
  end

endmodule
