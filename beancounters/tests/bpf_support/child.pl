# What runs in the counted cgroup: takes things as it is told, one command a line, and says how many it got and the error of the first refusal.
use strict;
use Socket;
use POSIX ();
$| = 1;
my (@kept, $listener, $number, $writer, $reader, $written);
# What goes when it is dropped.
sub Mapping::DESTROY { syscall(11, ${$_[0]}, 1 << 20) }
sub Segment::DESTROY { shmctl(${$_[0]}, 0, 0) }
sub Queue::DESTROY { msgctl(${$_[0]}, 0, 0) }
sub Semaphores::DESTROY { semctl(${$_[0]}, 0, 0, 0) }
sub Directory::DESTROY { rmdir ${$_[0]} }
sub kept { my ($class, $what) = @_; defined $what ? bless \$what, $class : undef }
POSIX::sigprocmask(POSIX::SIG_BLOCK, POSIX::SigSet->new(40));
# The files of locks, gone from the directory at once. fcntl's struct flock, as x86_64 has it.
my ($ranges, $whole, $description, $leased) = map { scratch($_) } '+<', '+<', '+<', '<';
sub scratch {
    my ($path, $mode, $h) = ("/tmp/vz-locks-$$", @_);
    open($h, '>', $path) && open($h, $mode, $path) && unlink $path or die "$path: $!";
    $h
}
sub range { my ($call, $file, $type, $start, $length) = @_; fcntl($file, $call, pack 's s x4 q q i x4', $type, 0, $start, $length, 0) ? 0 : undef }
use constant { F_RDLCK => 0, F_WRLCK => 1, F_UNLCK => 2, F_SETLK => 6, F_SETLKW => 7, F_OFD_SETLK => 37, F_SETLEASE => 1024 };
$SIG{PIPE} = 'IGNORE';
# Its network namespace is new.
my $up = pack 'a16 s x22', 'lo', 1;
socket(my $any, PF_INET, SOCK_DGRAM, 0);
ioctl($any, 0x8914, $up) && close $any or die "lo: $!";
my $page = 'x' x 4096;
sub readable { my ($h, $seconds) = @_; my $bits = ''; vec($bits, fileno $h, 1) = 1; $! = 0; select($bits, undef, undef, $seconds) }
# nftables, by netlink: a batch that is carried out as a whole. Each rule says nothing, and has a chain of its own.
use constant { NEWTABLE => 0, DELTABLE => 2, NEWCHAIN => 3, NEWRULE => 6, DELRULE => 8 };
my ($nftables, $size) = (undef, 1);
sub attribute { my ($type, $value) = @_; my $length = 4 + length $value; pack('S S', $length, $type) . $value . "\0" x (-$length & 3) }
sub message {
    my ($type, $family, $subsystem, @names) = @_;
    my $body = pack('C C n', $family, 0, $subsystem) . join '', @names;
    pack('L S S L L', 16 + length $body, $type, 0xc05, 1, 0) . $body
}
sub rule_message { my ($type, @names) = @_; message(10 << 8 | $type, PF_INET, 0, map { attribute($_->[0], "$_->[1]\0") } @names) }
sub new_rule { my $chain = shift; rule_message(NEWCHAIN, [1, 'vz'], [3, $chain]), rule_message(NEWRULE, [1, 'vz'], [2, $chain]) }
sub batch {
    $nftables // socket($nftables, 16, SOCK_RAW, 12) or die "netlink: $!";
    my $batch = join '', message(16, 0, 10), rule_message(NEWTABLE, [1, 'vz']), @_, message(17, 0, 10);
    $! = 0;
    return undef unless send($nftables, $batch, 0);
    while (defined recv($nftables, my $answer, 65536, MSG_DONTWAIT)) {
        my ($type, $error) = unpack 'x4 S x10 l', $answer;
        if ($type == 2 && $error) { $! = -$error; return undef }
    }
    0
}
# A table of iptables' own, of policies, an end, and rules that accept everything.
my ($table, $entries) = (undef, 4);
sub table {
    my $new = shift;
    $table // socket($table, PF_INET, SOCK_RAW, 255) or die "raw: $!";
    my $accept = "\0" x 84 . pack('L S S L x16 S a29 C l x4', 0, 112, 152, 0, 40, '', 0, -2);
    my $end = "\0" x 84 . pack('L S S L x16 S a29 C a30 x2', 0, 112, 176, 0, 64, 'ERROR', 0, 'ERROR');
    my $blob = $accept x ($new - 1) . $end;
    my @hooks = map { 152 * $_ } 0, 0, $new - 3, $new - 2, 0;
    my @policies = map { 152 * $_ } 0, $new - 4, $new - 3, $new - 2, 0;
    my $counters = "\0" x (16 * $entries);
    my $set = pack('a32 L L L L5 L5 L P', 'filter', 0xe, $new, length $blob, @hooks, @policies, $entries, $counters) . $blob;
    setsockopt($table, 0, 64, $set) or return undef;
    $entries = $new;
    0
}
my %take = (
    table => sub { table($size) },
    rules => sub { my $chain = 'c' . $number++; defined batch(new_rule($chain)) ? bless \$chain, 'Rule' : undef },
    # So many at once as the last `size` said.
    'rules-at-once' => sub { batch(map { new_rule("b$_") } 1 .. $size) },
    'rules-anew' => sub { batch(rule_message(DELRULE, [1, 'vz']), map { new_rule("b$_") } 1 .. $size) },
    'ruleset-anew' => sub { batch(message(10 << 8 | DELTABLE, 0, 0), rule_message(NEWTABLE, [1, 'vz']), map { new_rule("b$_") } 1 .. $size) },
    'other-anew' => sub { batch(rule_message(NEWTABLE, [1, 'other']), rule_message(DELRULE, [1, 'other']), new_rule('b1')) },
    'half-anew' => sub { batch(rule_message(DELRULE, [1, 'vz'], [2, 'b1']), new_rule('b1')) },
    'more-anew' => sub { batch(rule_message(DELRULE, [1, 'vz'], [2, 'b1']), map { new_rule("b$_") } 1 .. 2) },
    'rules-in-vain' => sub { batch((map { new_rule("b$_") } 1 .. $size), rule_message(NEWRULE, [1, 'vz'], [2, 'none'])) },
    'no-rules' => sub { batch(rule_message(DELRULE, [1, 'vz'])) },
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
    flocks => sub { my $h; open($h, '<', '/dev/null') && flock($h, 1) ? $h : undef },
    ranges => sub { my $at = 2 * @kept; defined range(F_SETLK, $ranges, F_WRLCK, $at, 1) ? bless \$at, 'Range' : undef },
    lock => sub { range(F_SETLK, $ranges, F_WRLCK, 0, 100) },
    unlock => sub { range(F_SETLK, $ranges, F_UNLCK, 0, 0) },
    'unlock-middle' => sub { range(F_SETLK, $ranges, F_UNLCK, 50, 1) },
    'lock-middle' => sub { range(F_SETLK, $ranges, F_WRLCK, 50, 1) },
    'read-middle' => sub { range(F_SETLK, $ranges, F_RDLCK, 50, 1) },
    'flock-shared' => sub { flock($whole, 1) ? 0 : undef },
    'flock-exclusive' => sub { flock($whole, 2) ? 0 : undef },
    'open-lock' => sub { range(F_OFD_SETLK, $description, F_WRLCK, 0, 1) },
    'limit-signals' => sub { syscall(160, 11, my $limit = pack 'Q Q', 10, 10) ? undef : 0 },
    # Of the lowest real-time signal, which is blocked: by rt_sigqueueinfo with SI_QUEUE, and by kill.
    signals => sub { syscall(129, $$, 40, my $info = pack 'i i i x116', 40, 0, -1) ? undef : 0 },
    kills => sub { kill(40, $$) ? 0 : undef },
    'locked-maps' => sub { my $at = syscall(9, 0, 4096, 3, 0x2022, -1, 0); $at == -1 ? undef : bless \$at, 'Page' },
    mlock => sub { my $at = syscall(9, 0, 4096, 3, 0x22, -1, 0); syscall(149, $at, 4096) ? undef : bless \$at, 'Page' },
    munlock => sub { syscall(150, ${$kept[-1]}, 4096) ? undef : 0 },
    mlockall => sub { syscall(151, 1) ? undef : 0 },
    'mlock-hole' => sub { syscall(149, 0, 4096) ? undef : 0 },
    'limit-locked' => sub { syscall(160, 8, my $limit = pack 'Q Q', 16 * 4096, 16 * 4096) ? undef : 0 },
    # Removed at once, it goes with its last user.
    'locked-segments' => sub {
        my $id = syscall(29, 0, 4096, 01600);
        my $at = syscall(30, $id, 0, 0);
        my $error = syscall(31, $id, 11, 0) && $!;
        syscall(31, $id, 0, 0);
        return bless \$at, 'LockedSegment' unless $error;
        syscall(67, $at);
        $! = $error;
        undef
    },
    lease => sub { fcntl($leased, F_SETLEASE, F_RDLCK) ? 0 : undef },
    wait => sub { my $pid = fork; unless ($pid) { range(F_SETLKW, $ranges, F_WRLCK, 0, 1); sleep 1000; exit } $pid },
    close => sub { close $_ for $whole, $description, $leased; 0 },
    # A page in the queue of each.
    datagram => sub { my ($h, $i); socketpair($h, $i, PF_UNIX, SOCK_DGRAM, 0) or return; push @kept, [$h, $i]; send($h, $page, MSG_DONTWAIT) ? 0 : undef },
    udp => sub { my $h; socket($h, PF_INET, SOCK_DGRAM, 0) && bind($h, pack_sockaddr_in(0, INADDR_LOOPBACK)) or return; push @kept, $h; send($h, $page, 0, getsockname $h) or return; readable($h, 2) ? 0 : undef },
    # One connection, into which pages are written that nobody reads before `drain`.
    connection => sub { $written = 0; socket($writer, PF_INET, SOCK_STREAM, 0) && connect($writer, getsockname $listener) && accept($reader, $listener) ? 0 : undef },
    pair => sub { $written = 0; socketpair($writer, $reader, PF_UNIX, SOCK_STREAM, 0) ? 0 : undef },
    page => sub { my $sent = send($writer, $page, MSG_DONTWAIT); return undef unless $sent; $written += $sent; 0 },
    drain => sub { while ($written > 0) { readable($reader, 60) && defined recv($reader, my $some, 65536, MSG_DONTWAIT) or return; $written -= length $some } 0 },
    hangup => sub { close $reader ? 0 : undef },
    force => sub { setsockopt($writer, SOL_SOCKET, 32, 1 << 20) ? 0 : undef },
    fork  => sub { my $pid = fork; return undef unless defined $pid; unless ($pid) { sleep 1000; exit } $pid },
);
sub Range::DESTROY { range(F_SETLK, $ranges, F_UNLCK, ${$_[0]}, 1) }
sub Rule::DESTROY { batch(rule_message(DELRULE, [1, 'vz'], [2, ${$_[0]}])) // warn "delete: $!" }
sub Page::DESTROY { syscall(11, ${$_[0]}, 4096) }
sub LockedSegment::DESTROY { syscall(67, ${$_[0]}) }
print "ready\n";
while (my $line = <STDIN>) {
    my ($what, $count) = split ' ', $line;
    if ($what eq 'drop') { @kept = (); ($writer, $reader) = (); print "0 0\n"; next }
    if ($what eq 'size') { $size = $count; print "0 0\n"; next }
    my ($got, $error) = (0, 0);
    while ($got < $count) {
        my $thing = $take{$what}->();
        unless (defined $thing) { $error = $! + 0; last }
        push @kept, $thing if $thing;
        $got++;
    }
    print "$got $error\n";
}
