using System.Runtime.CompilerServices;
static class Shares {
	static double sink;
	[MethodImpl(MethodImplOptions.NoInlining)]
	static double Spin(int n) { double s = 1; for (int i = 0; i < n; i++) s = s * 1.0000001 + i % 7; return s; }
	[MethodImpl(MethodImplOptions.NoInlining)]
	static double Heavy() { return Spin(30000) + 1; }
	[MethodImpl(MethodImplOptions.NoInlining)]
	static double Light() { return Spin(10000) + 1; }
	static void Main() { for (;;) { sink += Heavy(); sink += Light(); } }
}
