package Work;
sub spin { my ($n) = @_; my $s = 0; for (my $i = 0; $i < $n; $i++) { $s += $i } return $s }
sub heavy { return spin(3000) + 1 }
sub light { return spin(1000) + 1 }
package main;
while (1) { Work::heavy(); Work::light() }
