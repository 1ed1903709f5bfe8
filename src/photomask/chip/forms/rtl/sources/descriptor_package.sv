// The format of the words of the descriptor table. One descriptor is one pass over a map. The
// sequencer runs the descriptors one after the other, from address 0 to the first `STOP`.
//
// A descriptor has 1088 bits, with the first field in the most significant bits. A line of
// descriptors.hex therefore shows every field from `step` on in 8 or 16 digits. Numbers that can be
// negative are in two's complement. docs/reference/rtl.md explains the design, and README.md beside
// an export explains each field.

package descriptor_package;

  typedef enum logic [3:0] {
    STOP      = 4'd0,  // the program has ended
    MATRIX    = 4'd1,  // load one tile of weights, stream one map through the array
    VECTOR    = 4'd2,  // stream one map through the vector unit
    TILE      = 4'd3,  // load one tile of weights from what an earlier step computed
    SOFTMAX   = 4'd4,  // turn rows into their softmax
    NORMALIZE = 4'd5   // normalize rows: layer norm or root-mean-square norm
  } operation_t;

  typedef enum logic [3:0] {
    ADD      = 4'd0,
    MAXIMUM  = 4'd1,
    MULTIPLY = 4'd2
  } combine_t;

  typedef enum logic [3:0] {
    HALF_UP   = 4'd0,
    HALF_EVEN = 4'd1,
    HALF_AWAY = 4'd2,
    TRUNCATE  = 4'd3,
    DOUBLE    = 4'd4
  } rounding_t;

  typedef struct packed {
    operation_t         operation;
    combine_t           combine;
    rounding_t          rounding;
    logic [5:0]         reciprocal_bits;         // SOFTMAX: fraction bits of 1 / sum
    logic [5:0]         fraction_bits;           // SOFTMAX, NORMALIZE: fraction bits of a result
    logic               keep_weights;            // MATRIX: use the weights that the array holds
    logic               centred;                 // NORMALIZE: centre the row on its mean
    logic               last_of_step;            // the step's output is complete after this pass
    logic               input_in_accumulators;   // read the accumulator memory
    logic               output_in_accumulators;  // write the accumulator memory
    logic               input_signed;            // sign-extend words of the activation memory
    logic               start_from_memory;       // start each sum with the old output word
    logic               lookup;                  // replace each result by its table entry
    logic [7:0]         first_lane;              // first lane of the output word that is written
    logic [7:0]         last_lane;               // last lane of the output word that is written
    logic               dense;                   // MATRIX: each row of a sparse array reads a lane
    logic [14:0]        rotation;                // lane l takes input lane l - rotation
    logic [31:0]        step;                    // number of the program's step
    logic [31:0]        input_address;           // address of the word at row 0, column 0
    logic signed [31:0] input_height;            // rows and columns outside read padding_value
    logic signed [31:0] input_width;             // row unit: distance of a row's words
    logic [31:0]        output_height;
    logic [31:0]        output_width;            // SOFTMAX, NORMALIZE: number of rows
    logic signed [31:0] origin_row;              // input row of output row 0, kernel row 0
    logic signed [31:0] origin_column;
    logic signed [31:0] stride_row;
    logic signed [31:0] stride_column;
    logic [31:0]        kernel_height;           // VECTOR: taps that are combined to one result
    logic [31:0]        kernel_width;            // SOFTMAX, NORMALIZE: elements of a row
    logic signed [31:0] dilation_row;
    logic signed [31:0] dilation_column;
    logic signed [63:0] padding_value;
    logic [31:0]        output_address;          // address of the first result
    logic [31:0]        output_step;             // words from one result to the next
    logic [31:0]        weight_address;          // MATRIX: first of ROWS / KEPT weight words
    logic [31:0]        parameter_address;       // of biases, multipliers, gains, or a table
    logic signed [63:0] offset;                  // added to the input
    logic signed [63:0] coefficient;             // VECTOR, NORMALIZE: factor of input + offset
    logic signed [63:0] start;                   // VECTOR, NORMALIZE: initial value of the result
    logic signed [63:0] zero_point;              // VECTOR: added after rounding
    logic signed [63:0] low;                     // VECTOR: lower end; SOFTMAX: lowest visible input
    logic signed [63:0] high;                    // VECTOR: upper end; SOFTMAX: last table entry
  } descriptor_t;

endpackage
