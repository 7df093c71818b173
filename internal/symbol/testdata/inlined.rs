// As inlined.c.
use std::arch::asm;
use std::io::Read;

mod shop {
    use super::*;
    pub struct Cart(pub u64);
    impl Cart {
        #[inline(always)]
        pub fn add(&mut self) {
            unsafe { asm!("lea {}, [rip]", "nop", out(reg) self.0) };
        }
    }
    #[inline(never)]
    pub fn fill(c: &mut Cart) {
        c.add();
    }
}

fn main() {
    let mut c = shop::Cart(0);
    shop::fill(&mut c);
    println!("here {:x}\nready", c.0);
    let _ = std::io::stdin().read_to_end(&mut vec![]);
}
