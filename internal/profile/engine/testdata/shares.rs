// Three quarters of its time in heavy, a quarter in light; mix is inlined. Rounds
// differ in length, so that they do not keep step with the profiler's clock.
use std::hint::black_box;

#[inline(always)]
fn mix(s: u64, i: u64) -> u64 {
    let s = s.wrapping_mul(6364136223846793005).rotate_left(7) ^ i;
    s.wrapping_mul(6364136223846793005).rotate_left(11) ^ i
}

#[inline(never)]
fn spin(n: u64) -> u64 {
    let mut s = 0u64;
    for i in 0..n {
        s = mix(s, i);
    }
    s
}

struct Work;

impl Work {
    #[inline(never)]
    fn heavy(&self, n: u64) -> u64 {
        spin(black_box(3 * n)) + 1
    }
    #[inline(never)]
    fn light(&self, n: u64) -> u64 {
        spin(black_box(n)) + 1
    }
}

fn main() {
    let (w, mut k) = (Work, 1u64);
    loop {
        k = k.wrapping_mul(6364136223846793005).wrapping_add(1);
        let n = 5_000 + (k >> 33) % 10_000;
        black_box(w.heavy(n));
        black_box(w.light(n));
    }
}
