package service_test

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/fleet"
	"github.com/msrchat/msrchat/status/internal/service"
)

// wrong are reports that Parse refuses, by the field at fault.
var wrong = []struct {
	field string
	spoil func(*statusv1.ReportRequest)
}{
	{"instance", func(r *statusv1.ReportRequest) { r.Instance = "" }},
	{"instance", func(r *statusv1.ReportRequest) { r.Instance = strings.Repeat("x", 129) }},
	{"instance", func(r *statusv1.ReportRequest) { r.Instance = "a\x1b[2J" }},
	{"release", func(r *statusv1.ReportRequest) { r.Release = "v1\n" }},
	{"zone", func(r *statusv1.ReportRequest) { r.Zone = "\u202e" }},
	{"endpoint", func(r *statusv1.ReportRequest) { r.Endpoint = nil }},
	{"endpoint", func(r *statusv1.ReportRequest) { r.Endpoint.Address = "nowhere" }},
	{"endpoint", func(r *statusv1.ReportRequest) { r.Endpoint.Instance = "elsewhere" }},
	{"endpoint", func(r *statusv1.ReportRequest) { r.Endpoint.TlsServerName = strings.Repeat("x", 300) }},
	{"load", func(r *statusv1.ReportRequest) { r.Load = nil }},
	{"load", func(r *statusv1.ReportRequest) { r.Load.Cpu = math.NaN() }},
	{"load", func(r *statusv1.ReportRequest) { r.Load.SendRate = -1 }},
	{"load", func(r *statusv1.ReportRequest) { r.Load.QueueDelayMs = math.Inf(1) }},
	{"used_assignments", func(r *statusv1.ReportRequest) { r.UsedAssignments = make([]string, 20_001) }},
}

func TestParse(t *testing.T) {
	if got, err := service.Parse(good("a")); err != nil || got.Instance != "a" || got.Load.Connections != 3 ||
		got.StartedAt.UnixMilli() != 1 {
		t.Errorf("good: %+v, %v", got, err)
	}
	for _, w := range wrong {
		req := good("a")
		w.spoil(req)
		if _, err := service.Parse(req); errs.CodeOf(err) != errs.CodeInvalid || errs.From(err).Field != w.field {
			t.Errorf("%s: got %v", w.field, err)
		}
	}
}

func TestBadInputIsRefusedCountedAndDisturbsNobody(t *testing.T) {
	r := newRig(t, time.Minute)
	r.table.SetCatalog([]discovery.Instance{{ID: "a", Address: "127.0.0.1:1", Passing: true}})
	steady := r.open(r.client, good("a"))
	refused := 0.0
	check := func(name string, want codes.Code, err error) {
		t.Helper()
		if grpcstatus.Code(err) != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
		refused++
		r.eventually(name+" counted",
			func() bool { return r.metric("msrchat_status_reports_total", "refused") == refused })
	}
	send := func(reqs ...*statusv1.ReportRequest) error {
		stream, err := r.client.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, req := range reqs {
			if stream.Send(req) != nil {
				break // end returns why
			}
		}
		return end(stream)
	}
	for _, w := range wrong {
		req := good("b")
		w.spoil(req)
		check(w.field, codes.InvalidArgument, send(req))
	}
	other := good("c")
	other.BootId = 8
	check("another process on the stream", codes.InvalidArgument, send(good("c"), other))
	large := good("b")
	large.UsedAssignments = []string{strings.Repeat("x", service.MaxMessage)}
	check("too large", codes.ResourceExhausted, send(large))
	flood := make([]*statusv1.ReportRequest, 50_000)
	for i := range flood {
		flood[i] = good("b")
	}
	check("a flood", codes.Aborted, send(flood...))

	// Bytes that are not a message.
	stream, err := r.conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		statusv1.StatusService_Report_FullMethodName, grpc.ForceCodec(raw{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg([]byte("\xff\xff\xff\xff")); err != nil {
		t.Fatal(err)
	}
	check("no message", codes.Internal, stream.RecvMsg(&[]byte{}))

	// A method that does not exist.
	err = r.conn.Invoke(t.Context(), "/msrchat.status.v1.StatusService/Destroy",
		&statusv1.FleetRequest{}, &statusv1.FleetResponse{})
	if grpcstatus.Code(err) != codes.Unimplemented {
		t.Errorf("unknown method: %v", err)
	}
	r.eventually("the unknown method counted",
		func() bool { return r.metric("msrchat_status_calls_total", "other") == 1 })

	// Bytes that are not even HTTP/2, and silence: the connection is dropped.
	for name, bytes := range map[string][]byte{
		"noise": []byte("GET / HTTP/1.1\r\n\r\n"), "silence": nil, "a huge frame": frame(),
	} {
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(bytes); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
			t.Errorf("%s: still connected after 10 s", name)
		}
		conn.Close()
	}

	// No other stream noticed.
	if err := steady.Send(good("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := steady.Recv(); err != nil {
		t.Errorf("the well-behaved one: %v", err)
	}
	resp, err := r.client.Assign(t.Context(), &statusv1.AssignRequest{UserId: 1})
	if err != nil || resp.GetAssignment().GetServer().GetInstance() != "a" || resp.GetAssignment().GetCatalogOnly() {
		t.Errorf("assign: %v, %v", resp, err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// frame is a preface and a header of a 16 MiB frame.
func frame() []byte {
	b := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	return append(binary.BigEndian.AppendUint32(b, 0xffffff00), 0, 0, 0, 0, 0)
}

// raw sends bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return v.([]byte), nil }
func (raw) Unmarshal(b []byte, v any) error { *v.(*[]byte) = b; return nil }
func (raw) Name() string                    { return "proto" }

// FuzzParse: of any bytes that a peer sends, a report is refused or within its
// limits.
func FuzzParse(f *testing.F) {
	for _, w := range wrong[:10] {
		req := good("a")
		w.spoil(req)
		if b, err := proto.Marshal(req); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req statusv1.ReportRequest
		if proto.Unmarshal(b, &req) != nil {
			return
		}
		r, err := service.Parse(&req)
		if err != nil {
			if errs.CodeOf(err) != errs.CodeInvalid || errs.From(err).Field == "" {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if r.Instance == "" || len(r.Instance) > 128 || len(r.Address) > 300 || r.Load.CPU < 0 ||
			r.Load.CPU != r.Load.CPU {
			t.Errorf("accepted %+v", r)
		}
		table := fleet.New(fleet.Options{})
		if _, _, err := table.Join(r); err != nil {
			t.Errorf("join: %v", err)
		}
		table.View()
	})
}
