function spin(n) { let s = 0; for (let i = 0; i < n; i++) s += Math.sqrt(i) * s % 7; return s; }
function heavy() { return spin(3000000) + 1; }
function light() { return spin(1000000) + 1; }
let s = 0;
for (;;) { s += heavy(); s += light(); }
