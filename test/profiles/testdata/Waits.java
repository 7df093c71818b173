import java.io.File;

/** Waits for a monitor that another thread holds for 60 ms at a time. */
public class Waits {
	static final Object lock = new Object();
	static volatile double sink;

	static void begin(String flag) {
		while (!new File(flag).exists()) {
			for (int i = 0; i < 200000; i++) {
				sink = sink * 1.0000001 + i;
			}
		}
	}

	static void waitForMonitor() {
		synchronized (lock) {
			sink++;
		}
	}

	static void hold() {
		try {
			for (;;) {
				synchronized (lock) {
					Thread.sleep(60);
				}
				Thread.sleep(5);
			}
		} catch (InterruptedException e) {
			return;
		}
	}

	public static void main(String[] args) throws Exception {
		begin(args[0]);
		Thread holder = new Thread(Waits::hold, "holder");
		holder.setDaemon(true);
		holder.start();
		Thread.sleep(20);
		long total = 0;
		for (int i = 0; i < 50; i++) {
			long t = System.nanoTime();
			waitForMonitor();
			total += System.nanoTime() - t;
			Thread.sleep(10); // let the holder have it
		}
		System.out.println("waitForMonitor " + total);
		System.out.println("end");
		System.out.flush();
		Thread.sleep(600000);
	}
}
