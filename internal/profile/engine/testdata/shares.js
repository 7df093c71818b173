// Three quarters of its time in heavy, a quarter in light. They are called
// through an array, so that V8 does not inline them into the top level.
function spin(n) { let s = 0; for (let i = 0; i < n; i++) s += Math.sqrt(i) * s % 7; return s; }
function heavy() { return spin(30000) + 1; }
function light() { return spin(10000) + 1; }
const work = [heavy, light];
let s = 0;
for (let i = 0; ; i ^= 1) s += work[i]();
