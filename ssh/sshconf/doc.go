// Package sshconf connects to a name as OpenSSH would: with what ssh_config says
// of it, the hosts in known_hosts, the keys in files and in the agent, by way of
// jump hosts and proxy commands; and every call returns, as in package ssh.
// Nothing but what is given to it is read from the environment.
//
//	account, err := sshconf.Here(os.LookupEnv)
//	config, err := sshconf.Load(sshconf.Options{Account: account})
//	host, err := config.Host("web1")
//	client, err := host.Connect(ctx, sshconf.Login{})
//	defer client.Close()
//
// For many hosts, give [ssh.Pool] a Connect that does [Config.Host] and
// [Host.Connect], and keep one client for each jump host in [Login].Way.
//
// A line that OpenSSH would not take ends it for every host. Here an unknown
// directive is a [Warning]; a value that makes no sense is one too, and an error
// for the hosts to which the line applies. What is left out is told in warnings
// as well, where it could matter: Match exec (nothing is run to read a
// configuration), canonical host names, PKCS#11.
//
// # Where it is stricter than OpenSSH
//
// A host of which any key is known, and which shows another, has changed, also
// when the new key is of another kind. The key of a new host that cannot be
// written to known_hosts is not accepted by accept-new. A line of known_hosts that
// makes no sense and may be there to revoke a key fails the hosts that it names,
// or all where that cannot be told; others are left out, and [Login].Warn is told.
// Names with characters that a shell would act on are refused before anything
// else, and so is every token with them in a ProxyCommand (CVE-2023-51385),
// whichever way they came there.
package sshconf
