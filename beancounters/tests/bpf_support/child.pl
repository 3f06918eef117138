# What runs in the counted cgroup: takes things as it is told, one command a line, and says how many it got and the error of the first refusal.
use strict;
use Socket;
$| = 1;
my @kept;
my %take = (
    files => sub { my $h; open($h, '<', '/dev/null') ? $h : undef },
    tcp   => sub { my $h; socket($h, PF_INET, SOCK_STREAM, 0) ? $h : undef },
    unix  => sub { my $h; socket($h, PF_UNIX, SOCK_STREAM, 0) ? $h : undef },
    pairs => sub { my ($h, $i); socketpair($h, $i, PF_UNIX, SOCK_STREAM, 0) ? [$h, $i] : undef },
    ptys  => sub { my $h; open($h, '+<', '/dev/ptmx') ? $h : undef },
);
print "ready\n";
while (my $line = <STDIN>) {
    my ($what, $count) = split ' ', $line;
    if ($what eq 'drop') { @kept = (); print "0 0\n"; next }
    my ($got, $error) = (0, 0);
    while ($got < $count) {
        my $thing = $take{$what}->();
        unless (defined $thing) { $error = $! + 0; last }
        push @kept, $thing;
        $got++;
    }
    print "$got $error\n";
}
