/** Keeps 4321 objects of one class and 12 arrays of arrays. */
public class Kept {
    static final class Thing { long a, b; }
    static final Thing[][] things = new Thing[12][];

    public static void main(String[] args) throws Exception {
        int n = 0;
        for (int i = 0; i < things.length; i++) {
            things[i] = new Thing[400];
            for (int j = 0; j < things[i].length && n < 4321; j++, n++) things[i][j] = new Thing();
        }
        System.out.println("ready");
        Thread.sleep(600_000);
    }
}
