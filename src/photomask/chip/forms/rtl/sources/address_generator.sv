// Walks over one map. For each output position, row by row, it visits all taps of the kernel, one
// per cycle.
//
// Tap (i, j) of output (y, x) reads the input at
//   row = y * stride_row + origin_row + i * dilation_row, and at the column computed likewise.
// This is im2col without a copy. `in_map` is low for positions outside the input.
//
// Timing: `start` is high for one cycle while no walk runs. The first tap appears in the next
// cycle, then one tap per cycle. `finished` is high together with the last tap.

module address_generator
  import descriptor_package::*;
#(
    parameter int ADDRESS_BITS = 16
) (
    input  logic                    clock,
    input  logic                    reset,
    input  logic                    start,
    /* verilator lint_off UNUSEDSIGNAL */  // other units read the other fields
    input  descriptor_t             descriptor,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic                    valid,
    output logic [ADDRESS_BITS-1:0] input_address,
    output logic                    in_map,
    output logic                    first_tap,
    output logic                    last_tap,
    output logic [ADDRESS_BITS-1:0] output_address,
    output logic                    finished
);

  logic [31:0] y, x, i, j;
  logic signed [31:0] window_row, window_column;  // the input position of tap (0, 0)
  logic signed [31:0] tap_row, tap_column;  // the distance of tap (i, j) from tap (0, 0)
  logic signed [31:0] row, column;
  logic last_j, last_i, last_x, last_y;

  always_comb begin
    row = window_row + tap_row;
    column = window_column + tap_column;
    in_map = row >= 0 && row < descriptor.input_height
        && column >= 0 && column < descriptor.input_width;
    input_address = in_map
        ? ADDRESS_BITS'(descriptor.input_address + row * descriptor.input_width + column) : '0;
    last_j = j == descriptor.kernel_width - 1;
    last_i = i == descriptor.kernel_height - 1;
    last_x = x == descriptor.output_width - 1;
    last_y = y == descriptor.output_height - 1;
    first_tap = i == 0 && j == 0;
    last_tap = last_i && last_j;
    finished = valid && last_tap && last_x && last_y;
  end

  always_ff @(posedge clock) begin
    if (reset) begin
      valid <= 1'b0;
    end else if (start) begin
      valid <= 1'b1;
    end else if (finished) begin
      valid <= 1'b0;
    end
  end

  always_ff @(posedge clock) begin
    if (start) begin
      {y, x, i, j} <= '0;
      {tap_row, tap_column} <= '0;
      window_row <= descriptor.origin_row;
      window_column <= descriptor.origin_column;
      output_address <= ADDRESS_BITS'(descriptor.output_address);
    end else if (valid) begin
      if (!last_j) begin
        j <= j + 1;
        tap_column <= tap_column + descriptor.dilation_column;
      end else begin
        j <= '0;
        tap_column <= '0;
        if (!last_i) begin
          i <= i + 1;
          tap_row <= tap_row + descriptor.dilation_row;
        end else begin
          i <= '0;
          tap_row <= '0;
          output_address <= output_address + ADDRESS_BITS'(descriptor.output_step);
          if (!last_x) begin
            x <= x + 1;
            window_column <= window_column + descriptor.stride_column;
          end else begin
            x <= '0;
            y <= y + 1;
            window_column <= descriptor.origin_column;
            window_row <= window_row + descriptor.stride_row;
          end
        end
      end
    end
  end

endmodule
