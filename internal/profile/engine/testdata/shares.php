<?php
// Rounds differ in length, so that they do not keep step with the profiler's clock.
function spin($n) { $s = 0; for ($i = 0; $i < $n; $i++) { $s += $i; } return $s; }
function heavy($k) { return spin(3 * $k) + 1; }
function light($k) { return spin($k) + 1; }
while (true) { $k = mt_rand(3000, 20000); heavy($k); light($k); }
