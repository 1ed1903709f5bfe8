// How the weight memory names which KEPT of the GROUP inputs of a group have a weight.
//
// A pattern is a set of KEPT positions p0 < p1 < ... in a group. Its number is
//   binomial(p0, 1) + binomial(p1, 2) + binomial(p2, 3) + ...
// which counts all sets without a gap (the combinatorial number system). 2 of 4 inputs have six
// patterns and need three bits, where two positions need four. Pattern 0 is 0, 1, 2, ...

package pattern_package;

  // Returns how many sets of `chosen` of `items` things there are.
  function automatic int binomial(int items, int chosen);
    int count;
    count = 1;
    for (int i = 1; i <= chosen; i++) count = count * (items - chosen + i) / i;
    return count;
  endfunction

  // Returns the width of a position in a group; at least 1, because a port has at least one bit.
  function automatic int position_bits(int group);
    return group > 1 ? $clog2(group) : 1;
  endfunction

  // Returns the width of the number of a pattern; 0 for a dense array, which has only one pattern.
  function automatic int index_bits(int kept, int group);
    return $clog2(binomial(group, kept));
  endfunction

endpackage
