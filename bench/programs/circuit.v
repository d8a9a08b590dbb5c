// Simulation: a source of pseudo-random words, a filter of eight taps, an adder of gates, a CRC and a
// memory of counters, for CYCLES clock cycles. Prints the CRC and a sum over the counters.
//
// bench/circuit.py has the same circuit in Python.

module source(input clock, input reset, output reg [31:0] word);
    reg [31:0] a, b;
    always @(posedge clock)
        if (reset)
            word <= 32'd2463534242;
        else begin // Marsaglia's xorshift
            a = word ^ (word << 13);
            b = a ^ (a >> 17);
            word <= b ^ (b << 5);
        end
endmodule

module filter(input clock, input reset, input [15:0] in, output reg [31:0] out);
    reg [31:0] taps [0:7];
    reg [31:0] sum;
    integer i;
    always @(posedge clock)
        if (reset) begin
            for (i = 0; i < 8; i = i + 1) taps[i] <= 0;
            out <= 0;
        end else begin
            sum = 0;
            for (i = 0; i < 8; i = i + 1) sum = sum + taps[i] * (i * i + 3);
            for (i = 7; i > 0; i = i - 1) taps[i] <= taps[i - 1];
            taps[0] <= {16'd0, in};
            out <= sum;
        end
endmodule

module adder(input [31:0] a, input [31:0] b, output [31:0] sum);
    wire [32:0] carry;
    assign carry[0] = 1'b0;
    genvar i;
    generate
        for (i = 0; i < 32; i = i + 1) begin : bits
            wire half, both, through;
            xor (half, a[i], b[i]);
            xor (sum[i], half, carry[i]);
            and (both, a[i], b[i]);
            and (through, half, carry[i]);
            or (carry[i + 1], both, through);
        end
    endgenerate
endmodule

module crc(input clock, input reset, input [31:0] in, output reg [31:0] out);
    reg [31:0] next;
    integer i;
    always @(posedge clock)
        if (reset)
            out <= 32'hffffffff;
        else begin
            next = out ^ in;
            for (i = 0; i < 32; i = i + 1)
                next = next[0] ? (next >> 1) ^ 32'hedb88320 : next >> 1;
            out <= next;
        end
endmodule

module counters(input clock, input reset, input [7:0] index, input [7:0] more);
    reg [31:0] counts [0:255];
    integer i;
    always @(posedge clock)
        if (reset)
            for (i = 0; i < 256; i = i + 1) counts[i] <= 0;
        else
            counts[index] <= counts[index] + more;
endmodule

module bench;
    reg clock = 0, reset = 1;
    wire [31:0] word, filtered, sum, check;
    source the_source(clock, reset, word);
    filter the_filter(clock, reset, word[15:0], filtered);
    adder the_adder(filtered, word, sum);
    crc the_crc(clock, reset, sum, check);
    counters the_counters(clock, reset, sum[7:0], sum[15:8]);

    reg [31:0] total = 0;
    integer i;
    always #5 clock = !clock;
    initial begin
        #12 reset = 0;
        #(10 * `CYCLES);
        for (i = 0; i < 256; i = i + 1) total = total * 31 + the_counters.counts[i];
        $display("%h-%h", check, total);
        $finish(0);
    end
endmodule
