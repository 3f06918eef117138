# What runs in the counted cgroup: takes things as it is told, one command a line, and says how many it got and the error of the first refusal.
use strict;
use Socket;
$| = 1;
my (@kept, $listener);
my %take = (
    files => sub { my $h; open($h, '<', '/dev/null') ? $h : undef },
    tcp   => sub { my $h; socket($h, PF_INET, SOCK_STREAM, 0) ? $h : undef },
    unix  => sub { my $h; socket($h, PF_UNIX, SOCK_STREAM, 0) ? $h : undef },
    pairs => sub { my ($h, $i); socketpair($h, $i, PF_UNIX, SOCK_STREAM, 0) ? [$h, $i] : undef },
    ptys  => sub { my $h; open($h, '+<', '/dev/ptmx') ? $h : undef },
    memory => sub { my $at = syscall(9, 0, 1 << 20, 3, 0x22, -1, 0); $at == -1 ? undef : $at },
    unmap => sub { my $at = pop @kept; syscall(11, $at, 1 << 20) == -1 ? undef : 0 },
    listen => sub { socket($listener, PF_INET, SOCK_STREAM, 0) && bind($listener, pack_sockaddr_in(0, INADDR_LOOPBACK)) && listen($listener, 9) ? 0 : undef },
    connect => sub { my $h; socket($h, PF_INET, SOCK_STREAM, 0) && connect($h, getsockname $listener) ? $h : undef },
    accept => sub { my $h; accept($h, $listener) ? $h : undef },
    churn => sub { my $h; open($h, '<', '/dev/null') && close $h && socket($h, PF_INET, SOCK_STREAM, 0) && close $h ? 0 : undef },
    fork  => sub { my $pid = fork; return undef unless defined $pid; unless ($pid) { sleep 1000; exit } $pid },
);
print "ready\n";
while (my $line = <STDIN>) {
    my ($what, $count) = split ' ', $line;
    if ($what eq 'drop') { @kept = (); print "0 0\n"; next }
    my ($got, $error) = (0, 0);
    while ($got < $count) {
        my $thing = $take{$what}->();
        unless (defined $thing) { $error = $! + 0; last }
        push @kept, $thing if $thing;
        $got++;
    }
    print "$got $error\n";
}
