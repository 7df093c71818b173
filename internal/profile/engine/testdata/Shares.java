/**
 * Three quarters of its time in heavy, a quarter in light, in a thread with a name; mix is inlined.
 * Rounds differ in length, so that they do not keep step with the profiler's clock.
 */
public class Shares {
	static double sink;
	static double mix(double s, int i) { return s * 1.0000001 + i % 7; }
	static double spin(int n) { double s = 1; for (int i = 0; i < n; i++) s = mix(s, i); return s; }
	static double heavy(int k) { return spin(3 * k) + 1; }
	static double light(int k) { return spin(k) + 1; }
	static void work() { java.util.Random r = new java.util.Random(1); for (;;) { int k = 5000 + r.nextInt(10000); sink += heavy(k); sink += light(k); } }
	public static void main(String[] a) { new Thread(Shares::work, "worker").start(); }
}
