package cache

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Metrics shows the pool: connections open and idle, how often a caller found an
// idle one, and how often and how long it waited for one.
func Metrics(client redis.UniversalClient) prometheus.Collector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("redis_pool_"+name, help, nil, nil)
	}
	return &collector{
		client:   client,
		open:     desc("open_connections", "Open connections, in use or idle."),
		idle:     desc("idle_connections", "Open connections that are not in use."),
		hits:     desc("hits_total", "Times that a caller found an idle connection."),
		misses:   desc("misses_total", "Times that a caller found no idle connection."),
		timeouts: desc("wait_timeouts_total", "Times that no connection became free in time."),
		waits:    desc("waits_total", "Times that a caller waited for a connection."),
		waited:   desc("wait_seconds_total", "Time that callers waited for a connection."),
		stale:    desc("stale_connections_total", "Connections closed because they were idle for too long."),
	}
}

type collector struct {
	client redis.UniversalClient

	open, idle, hits, misses, timeouts, waits, waited, stale *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.client.PoolStats()
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	gauge(c.open, float64(s.TotalConns))
	gauge(c.idle, float64(s.IdleConns))
	counter(c.hits, float64(s.Hits))
	counter(c.misses, float64(s.Misses))
	counter(c.timeouts, float64(s.Timeouts))
	counter(c.waits, float64(s.WaitCount))
	counter(c.waited, time.Duration(s.WaitDurationNs).Seconds())
	counter(c.stale, float64(s.StaleConns))
}
