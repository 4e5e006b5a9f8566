package procfs

import (
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	id    = "f5c4f1c0a6a2d7a3e8c7b6a5948372615f4e3d2c1b0a99887766554433221100"
	inner = "0011223344556677889900aabbccddeeff0011223344556677889900aabbccdd"
	pod   = "kubepods-burstable-podc2e3b6a0_8d3f_4d6b_9a57_3f1d2e4c5b6a.slice"
)

// groups are lines as the runtimes write them.
var groups = []struct {
	name, text               string
	container, runtime, unit string
	path                     string // "" = the path of the first line
}{
	{"v2 service", "0::/system.slice/sshd.service\n", "", "", "sshd.service", ""},
	{"v2 template", "0::/system.slice/system-getty.slice/getty@tty1.service\n", "", "", "getty@tty1.service", ""},
	{"v2 escaped", `0::/system.slice/system-cryptsetup.slice/systemd-cryptsetup@luks\x2dhome.service` + "\n", "", "", `systemd-cryptsetup@luks\x2dhome.service`, ""},
	{"v2 below a service", "0::/system.slice/nomad.service/worker/3\n", "", "", "nomad.service", ""},
	{"v2 session", "0::/user.slice/user-1000.slice/session-3.scope\n", "", "", "session-3.scope", ""},
	{"v2 user unit", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service\n", "", "", "syncthing.service", ""},
	{"v2 user scope", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-4242.scope\n", "", "", "app-gnome-firefox-4242.scope", ""},
	{"v2 user manager", "0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", "", "", "user@1000.service", ""},
	{"v2 systemd", "0::/init.scope\n", "", "", "init.scope", ""},
	{"v2 root", "0::/\n", "", "", "", ""},
	{"v2 removed", "0::/system.slice/cron.service (deleted)\n", "", "", "cron.service", "/system.slice/cron.service"},

	{"docker systemd", "0::/system.slice/docker-" + id + ".scope\n", id, "docker", "", ""},
	{"docker cgroupfs", "0::/docker/" + id + "\n", id, "docker", "", ""},
	{"docker init", "0::/docker/" + id + "/init\n", id, "docker", "", ""},
	{"docker with systemd inside", "0::/docker/" + id + "/system.slice/nginx.service\n", id, "docker", "nginx.service", ""},
	{"docker in docker", "0::/docker/" + id + "/docker/" + inner + "\n", inner, "docker", "", ""},
	{"kind", "0::/docker/" + id + "/kubelet.slice/kubelet-kubepods.slice/kubelet-" + pod + "/cri-containerd-" + inner + ".scope\n", inner, "containerd", "", ""},
	{"docker rootless", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + id + ".scope\n", id, "docker", "user@1000.service", ""},

	{"kubernetes containerd systemd", "0::/kubepods.slice/kubepods-burstable.slice/" + pod + "/cri-containerd-" + id + ".scope\n", id, "containerd", "", ""},
	{"kubernetes containerd cgroupfs", "0::/kubepods/burstable/podc2e3b6a0-8d3f-4d6b-9a57-3f1d2e4c5b6a/" + id + "\n", id, "", "", ""},
	{"kubernetes drivers differ", "0::/system.slice/containerd.service/" + pod + ":cri-containerd:" + id + "\n", id, "containerd", "containerd.service", ""},
	{"kubernetes cri-o", "0::/kubepods.slice/kubepods-besteffort.slice/" + pod + "/crio-" + id + ".scope/container\n", id, "cri-o", "", ""},
	{"kubernetes cri-o cgroupfs", "0::/kubepods/besteffort/podc2e3b6a0/crio-" + id + "\n", id, "cri-o", "", ""},
	{"cri-o monitor", "0::/system.slice/crio-conmon-" + id + ".scope\n", "", "", "crio-conmon-" + id + ".scope", ""},
	{"kubernetes dockershim", "0::/kubepods.slice/" + pod + "/docker-" + id + ".scope\n", id, "docker", "", ""},
	{"guaranteed pod of k3s", "0::/kubepods/podc2e3b6a0-8d3f-4d6b-9a57-3f1d2e4c5b6a/" + id + "\n", id, "", "", ""},

	{"podman", "0::/machine.slice/libpod-" + id + ".scope/container\n", id, "podman", "", ""},
	{"podman rootless", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope/container\n", id, "podman", "user@1000.service", ""},
	{"podman cgroupfs", "0::/libpod_parent/libpod-" + id + "\n", id, "podman", "", ""},
	{"podman quadlet", "0::/system.slice/web.service/libpod-payload-" + id + "\n", id, "podman", "web.service", ""},
	{"podman monitor", "0::/machine.slice/libpod-conmon-" + id + ".scope\n", "", "", "libpod-conmon-" + id + ".scope", ""},
	{"nerdctl systemd", "0::/system.slice/nerdctl-" + id + ".scope\n", id, "containerd", "", ""},
	{"nerdctl cgroupfs", "0::/default/" + id + "\n", id, "containerd", "", ""},
	{"ecs", "0::/ecs/9d1c2b3a4f5e6d7c8b9a0f1e2d3c4b5a/" + id + "\n", id, "", "", ""},

	{"lxc", "0::/lxc.payload.web/system.slice/nginx.service\n", "web", "lxc", "nginx.service", ""},
	{"lxc old", "0::/lxc/web/init.scope\n", "web", "lxc", "init.scope", ""},
	{"lxc payload", "0::/lxc.payload/web\n", "web", "lxc", "", ""},
	{"lxc monitor", "0::/lxc.monitor.web\n", "", "", "", ""},
	{"docker in lxc", "0::/lxc.payload.web/docker/" + id + "\n", id, "docker", "", ""},
	{"nspawn", `0::/machine.slice/machine-my\x2dbox.scope/payload/system.slice/sshd.service` + "\n", "my-box", "systemd-nspawn", "sshd.service", ""},
	{"nspawn service", "0::/machine.slice/systemd-nspawn@box.service/payload/init.scope\n", "box", "systemd-nspawn", "init.scope", ""},
	{"nspawn itself", "0::/machine.slice/systemd-nspawn@box.service/supervisor\n", "", "", "systemd-nspawn@box.service", ""},
	{"libvirt", `0::/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator` + "\n", "", "", `machine-qemu\x2d1\x2dvm.scope`, ""},

	{"v1 docker", "12:pids:/docker/" + id + "\n11:memory:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n", id, "docker", "", ""},
	{"hybrid docker", "3:cpu,cpuacct:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n0::/system.slice/containerd.service\n", id, "docker", "", ""},
	{"hybrid docker, v2 first", "0::/system.slice/containerd.service\n1:name=systemd:/docker/" + id + "\n", id, "docker", "", "/docker/" + id},
	{"hybrid service", "5:cpu,cpuacct:/\n2:memory:/system.slice/cron.service\n1:name=systemd:/system.slice/cron.service\n0::/system.slice/cron.service\n", "", "", "cron.service", "/system.slice/cron.service"},
	{"v1 root", "2:memory:/\n1:name=systemd:/\n0::/\n", "", "", "", ""},
	{"v1 without systemd", "3:cpu:/\n2:memory:/batch/job7\n1:name=openrc:/crond\n0::/\n", "", "", "", "/batch/job7"},
	{"v1 controllers with a comma", "4:net_cls,net_prio:/kubepods/podx/" + id + "\n", id, "", "", ""},

	{"namespace above", "0::/../../cri-containerd-" + id + ".scope\n", id, "containerd", "", ""},
	{"namespace beside", "0::/../" + id + "\n", id, "", "", ""},
	{"namespace of another", "0::/../../../system.slice/sshd.service\n", "", "", "sshd.service", ""},

	{"63 digits", "0::/docker/" + id[1:] + "\n", "", "", "", ""},
	{"not hex", "0::/docker/" + strings.Repeat("g", 64) + "\n", "", "", "", ""},
	{"upper case", "0::/docker/" + strings.ToUpper(id) + "\n", "", "", "", ""},
	{"foreign prefix", "0::/system.slice/backup-" + id + ".scope\n", "", "", "backup-" + id + ".scope", ""},
	{"no separator", "0::/docker" + id + "\n", "", "", "", ""},
	{"control characters", "0::/evil\x1b[2J.service\n", "", "", `evil\x1b[2J.service`, `/evil\x1b[2J.service`},
	{"colons", "0::/a:b:c.service\n", "", "", "a:b:c.service", ""},
}

func TestParseCgroup(t *testing.T) {
	for _, c := range groups {
		t.Run(c.name, func(t *testing.T) {
			want := group{c.path, c.container, c.runtime, c.unit}
			if want.path == "" {
				line, _, _ := strings.Cut(c.text, "\n")
				want.path = strings.SplitN(line, ":", 3)[2]
			}
			if got := parseCgroup(c.text); got != want {
				t.Errorf("%q:\ngot  %+v\nwant %+v", c.text, got, want)
			}
		})
	}
	for _, text := range []string{"", "\n", "0", "0:", "::", "0::"} {
		if got := parseCgroup(text); got != (group{}) {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func FuzzCgroup(f *testing.F) {
	for _, c := range groups {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g := parseCgroup(text)
		for _, s := range []string{g.path, g.container, g.unit} {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("not printable: %q", s)
			}
		}
		if g.runtime != "" && g.container == "" {
			t.Errorf("a runtime without a container: %+v", g)
		}
	})
}

func BenchmarkParseCgroup(b *testing.B) {
	text := "0::/kubepods.slice/kubepods-burstable.slice/" + pod + "/cri-containerd-" + id + ".scope\n"
	for b.Loop() {
		parseCgroup(text)
	}
}
