public class Shares {
	static double sink;
	static double spin(int n) { double s = 1; for (int i = 0; i < n; i++) s = s * 1.0000001 + i % 7; return s; }
	static double heavy() { return spin(3000000) + 1; }
	static double light() { return spin(1000000) + 1; }
	public static void main(String[] a) { for (;;) { sink += heavy(); sink += light(); } }
}
