/** Three quarters of its time in heavy, a quarter in light, in a thread with a name; mix is inlined. */
public class Shares {
	static double sink;
	static double mix(double s, int i) { return s * 1.0000001 + i % 7; }
	static double spin(int n) { double s = 1; for (int i = 0; i < n; i++) s = mix(s, i); return s; }
	static double heavy() { return spin(30000) + 1; }
	static double light() { return spin(10000) + 1; }
	static void work() { for (;;) { sink += heavy(); sink += light(); } }
	public static void main(String[] a) { new Thread(Shares::work, "worker").start(); }
}
