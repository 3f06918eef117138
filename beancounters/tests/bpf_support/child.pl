# What runs in the counted cgroup: takes things as it is told, one command a line, and says how many it got and the error of the first refusal.
use strict;
use Socket;
use POSIX ();
$| = 1;
my (@kept, $listener, $number);
# What goes when it is dropped.
sub Mapping::DESTROY { syscall(11, ${$_[0]}, 1 << 20) }
sub Segment::DESTROY { shmctl(${$_[0]}, 0, 0) }
sub Queue::DESTROY { msgctl(${$_[0]}, 0, 0) }
sub Semaphores::DESTROY { semctl(${$_[0]}, 0, 0, 0) }
sub Directory::DESTROY { rmdir ${$_[0]} }
sub kept { my ($class, $what) = @_; defined $what ? bless \$what, $class : undef }
my %take = (
    files => sub { my $h; open($h, '<', '/dev/null') ? $h : undef },
    tcp   => sub { my $h; socket($h, PF_INET, SOCK_STREAM, 0) ? $h : undef },
    unix  => sub { my $h; socket($h, PF_UNIX, SOCK_STREAM, 0) ? $h : undef },
    pairs => sub { my ($h, $i); socketpair($h, $i, PF_UNIX, SOCK_STREAM, 0) ? [$h, $i] : undef },
    ptys  => sub { my $h; open($h, '+<', '/dev/ptmx') ? $h : undef },
    memory => sub { my $at = syscall(9, 0, 1 << 20, 3, 0x22, -1, 0); $at == -1 ? undef : $at },
    unmap => sub { my $at = pop @kept; syscall(11, $at, 1 << 20) == -1 ? undef : 0 },
    shared => sub { my $at = syscall(9, 0, 1 << 20, 3, 0x21, -1, 0); kept(Mapping => $at == -1 ? undef : $at) },
    segments => sub { kept(Segment => scalar shmget(0, 16 << 12, 01600)) },
    queues => sub { kept(Queue => scalar msgget(0, 01600)) },
    semaphores => sub { kept(Semaphores => scalar semget(0, 1, 01600)) },
    directories => sub { my $d = "/var/tmp/vz-$$-" . $number++; kept(Directory => mkdir($d) ? $d : undef) },
    tmpfs => sub { my ($h, $f) = (undef, "/dev/shm/vz-$$-" . $number++); open($h, '>', $f) && unlink($f) && (syswrite($h, 'x' x 4096) // 0) == 4096 ? $h : undef },
    bomb  => sub { my $end = time + 10; while (time < $end) { fork // select(undef, undef, undef, 0.01) } POSIX::_exit(0) },
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
