/*
 * numtcpsock, numothersock: sockets that a task has, of every family. The kernel's own (kern) are nobody's. What is charged is the inode that
 * a socket is part of: it goes when the socket goes, and for an accepted one it is there before the connection is.
 */
#include "charge.h"

static __always_inline const struct inode *inode_of(const struct socket *socket)
{
	return &((const struct socket_alloc *)socket)->vfs_inode;
}

/* Nobody in a container is the host's root. Asked when it is charged and when it goes: of most sockets of the host that is all. */
static __always_inline int of_the_hosts_root(const struct inode *inode)
{
	return BPF_CORE_READ(inode, i_uid.val) == 0;
}

static __always_inline int charge_socket(const struct socket *socket, __u32 resource)
{
	const struct inode *inode = inode_of(socket);

	return of_the_hosts_root(inode) ? 0 : charge(inode, resource, HARD, ENOBUFS);
}

static __always_inline __u32 resource_of(int family, int type, int protocol)
{
	int inet = family == AF_INET || family == AF_INET6;
	int tcp = protocol == IPPROTO_IP || protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;

	return inet && type == SOCK_STREAM && tcp ? NUMTCPSOCK : NUMOTHERSOCK;
}

SEC("lsm/socket_post_create")
int BPF_PROG(vz_socket_create, struct socket *socket, int family, int type, int protocol, int kern)
{
	if (kern)
		return 0;
	return charge_socket(socket, resource_of(family, type, protocol));
}

/* Before the connection is taken from the queue: one that is refused stays there, for when there is room. */
SEC("lsm/socket_accept")
int BPF_PROG(vz_socket_accept, struct socket *listener, struct socket *accepted)
{
	struct sock *sk = listener->sk;

	if (!sk)
		return 0;
	return charge_socket(accepted, resource_of(sk->__sk_common.skc_family, listener->type, sk->sk_protocol));
}

SEC("lsm/inode_free_security")
int BPF_PROG(vz_socket_free, struct inode *inode)
{
	if ((inode->i_mode & S_IFMT) == S_IFSOCK && !of_the_hosts_root(inode))
		uncharge(inode);
	return 0;
}
