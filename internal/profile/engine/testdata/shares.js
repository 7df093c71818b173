// Three quarters of its time in heavy, a quarter in light. They are called
// through an array, so that V8 does not inline them into the top level. Rounds
// differ in length, so that they do not keep step with the profiler's clock.
function spin(n) { let s = 0; for (let i = 0; i < n; i++) s += Math.sqrt(i) * s % 7; return s; }
function heavy(k) { return spin(3 * k) + 1; }
function light(k) { return spin(k) + 1; }
const work = [heavy, light];
let s = 0, k = 0;
for (let i = 0; ; i ^= 1) {
  if (i === 0) k = 5000 + Math.floor(Math.random() * 10000);
  s += work[i](k);
}
