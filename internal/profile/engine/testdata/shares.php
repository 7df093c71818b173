<?php
function spin($n) { $s = 0; for ($i = 0; $i < $n; $i++) { $s += $i; } return $s; }
function heavy() { return spin(3000) + 1; }
function light() { return spin(1000) + 1; }
while (true) { heavy(); light(); }
