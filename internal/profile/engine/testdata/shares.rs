// Three quarters of its time in heavy, a quarter in light; mix is inlined.
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
    fn heavy(&self) -> u64 {
        spin(black_box(30_000)) + 1
    }
    #[inline(never)]
    fn light(&self) -> u64 {
        spin(black_box(10_000)) + 1
    }
}

fn main() {
    let w = Work;
    loop {
        black_box(w.heavy());
        black_box(w.light());
    }
}
