package harness

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"syscall"
	"time"
)

// Usage is what a process used since it began.
type Usage struct {
	CPU      time.Duration `json:"cpu"` // of user and system
	Allocs   uint64        `json:"allocs"`
	Bytes    uint64        `json:"bytes"`
	Switches int64         `json:"switches"` // of context, voluntary ones: waits
	Memory   uint64        `json:"memory"`   // what the runtime holds now
}

// Since is what was used since before; memory stays what it is now.
func (u Usage) Since(before Usage) Usage {
	u.CPU -= before.CPU
	u.Allocs -= before.Allocs
	u.Bytes -= before.Bytes
	u.Switches -= before.Switches
	return u
}

// OwnUsage is that of this process.
func OwnUsage() Usage {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // fails for a bad argument only
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:objects"},
		{Name: "/gc/heap/tiny/allocs:objects"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(samples)
	n := func(i int) uint64 { return samples[i].Value.Uint64() }
	return Usage{
		CPU:      time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		Allocs:   n(0) + n(1),
		Bytes:    n(2),
		Switches: r.Nvcsw,
		Memory:   n(3) - n(4),
	}
}

// machine is the processor time of the whole machine since it began, where it can be known: on Linux.
type machine struct{ busy, all time.Duration }

const tick = time.Second / 100 // the unit of /proc/stat

func readMachine() machine {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machine{}
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	var user, nice, system, idle, iowait, irq, softirq, steal int64
	if _, err := fmt.Sscanf(string(line), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		return machine{}
	}
	busy := user + nice + system + irq + softirq + steal
	return machine{time.Duration(busy) * tick, time.Duration(busy+idle+iowait) * tick}
}

// foreign is the share of the machine that others than we took since before.
func (m machine) foreign(before machine, ours time.Duration) float64 {
	all := m.all - before.all
	if all <= 0 {
		return 0
	}
	return max(0, float64(m.busy-before.busy-ours)/float64(all))
}

// Machine says in a line what this is measured on.
func Machine() string {
	model := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := bytes.Cut(info, []byte("model name\t: ")); ok {
			line, _, _ := bytes.Cut(rest, []byte("\n"))
			model = string(line)
		}
	}
	load := ""
	if avg, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = ", load " + string(bytes.Join(bytes.Fields(avg)[:3], []byte(" ")))
	}
	return fmt.Sprintf("%d processors (%s), %s, %s/%s%s", runtime.NumCPU(), model, runtime.Version(), runtime.GOOS, runtime.GOARCH, load)
}
