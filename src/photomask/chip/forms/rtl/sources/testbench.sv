// Runs one program on the reference design and writes the output of every step to a file.
//
// Plus arguments:
//   +program=FOLDER   holds descriptors.hex, weights.hex, parameters.hex, tables.hex and dumps.hex
//   +inputs=FOLDER    holds activations.hex and accumulators.hex, the initial content of the
//                     memories
//   +outputs=FOLDER   an existing folder. The testbench writes step_N.hex with the words of step
//                     N's output, for each step that computes something, and cycles.txt with a line
//                     "step cycles" for each step
//   +limit=CYCLES     gives up after this many cycles
// Line N of dumps.hex says where the output of step N lies: the memory (0 for activations, 1 for
// accumulators), the first word and the number of words, with eight digits each. If the number of
// words is 0, nothing is written.
//
// Under cocotb the top level is the same, and the test waits for `finished`.

module testbench
  import descriptor_package::*;
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
    parameter int DESCRIPTOR_DEPTH = 1024,
    parameter int STEPS = 1024,
    parameter bit STOP_AT_END = 1
);

  logic clock;
  logic reset = 1'b1;
  logic finished;
  logic step_done, done;
  logic [31:0] step, cycles;

  reference_design #(
      .ROWS(ROWS),
      .COLUMNS(COLUMNS),
      .LANES(LANES),
      .WEIGHT_BITS(WEIGHT_BITS),
      .ACTIVATION_BITS(ACTIVATION_BITS),
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .MULTIPLIER_BITS(MULTIPLIER_BITS),
      .KEPT(KEPT),
      .GROUP(GROUP),
      .ACTIVATION_DEPTH(ACTIVATION_DEPTH),
      .ACCUMULATOR_DEPTH(ACCUMULATOR_DEPTH),
      .WEIGHT_DEPTH(WEIGHT_DEPTH),
      .PARAMETER_DEPTH(PARAMETER_DEPTH),
      .TABLE_DEPTH(TABLE_DEPTH),
      .DESCRIPTOR_DEPTH(DESCRIPTOR_DEPTH)
  ) dut (
      .clock,
      .reset,
      .step_done,
      .step,
      .done,
      .cycles
  );

  logic [95:0] dumps[STEPS];
  logic [31:0] begun;  // the cycle in which the current step began
  string program_folder, inputs_folder, outputs_folder;
  longint limit;
  int cycles_file;

  always begin
    clock = 1'b0;
    #5 clock = 1'b1;
    #5;
  end

  initial begin
    if (!$value$plusargs("program=%s", program_folder)) $fatal(1, "+program=FOLDER is missing");
    if (!$value$plusargs("inputs=%s", inputs_folder)) $fatal(1, "+inputs=FOLDER is missing");
    if (!$value$plusargs("outputs=%s", outputs_folder)) $fatal(1, "+outputs=FOLDER is missing");
    if (!$value$plusargs("limit=%d", limit)) limit = 64'd1000000000;
    #1;  // the memories set themselves to 0 before this moment
    $readmemh({program_folder, "/descriptors.hex"}, dut.descriptors.words);
    $readmemh({program_folder, "/weights.hex"}, dut.weights.words);
    $readmemh({program_folder, "/parameters.hex"}, dut.parameters.words);
    $readmemh({program_folder, "/tables.hex"}, dut.vector.tables.entries);
    $readmemh({program_folder, "/dumps.hex"}, dumps);
    $readmemh({inputs_folder, "/activations.hex"}, dut.activation_memory.words);
    $readmemh({inputs_folder, "/accumulators.hex"}, dut.accumulator_memory.words);
    cycles_file = $fopen({outputs_folder, "/cycles.txt"}, "w");
    repeat (2) @(posedge clock);
    @(negedge clock) reset = 1'b0;
  end

  always @(negedge clock) begin
    if (reset) begin
      begun <= '0;
      finished <= 1'b0;
    end else if (step_done) begin
      string name;
      name = $sformatf("%s/step_%0d.hex", outputs_folder, step);
      if (dumps[step][31:0] != 0) begin
        if (dumps[step][95:64] == 0) begin
          $writememh(name, dut.activation_memory.words, dumps[step][63:32],
                     dumps[step][63:32] + dumps[step][31:0] - 1);
        end else begin
          $writememh(name, dut.accumulator_memory.words, dumps[step][63:32],
                     dumps[step][63:32] + dumps[step][31:0] - 1);
        end
      end
      $fdisplay(cycles_file, "%0d %0d", step, cycles + 1 - begun);
      begun <= cycles + 1;
    end
    if (!reset && !finished && (done || 64'(cycles) >= limit)) begin
      if (done) $fdisplay(cycles_file, "total %0d", cycles);
      else $fdisplay(cycles_file, "gave up after %0d", cycles);
      $fclose(cycles_file);
      finished <= 1'b1;
      if (STOP_AT_END) $finish;
    end
  end

endmodule
