package account

import (
	"context"
	"net/netip"
	"time"

	"github.com/msrchat/msrchat/gate/internal/limit"
)

// Rules limit what could be abused. A rule with a zero count allows everything.
type Rules struct {
	// CodePause is the least time between two codes to one address.
	CodePause time.Duration
	// Codes sent to one address for one client, in the short and in the long run, to one
	// address for anybody, and requested by one client.
	CodesPerAddress              limit.Rule
	CodesPerAddressAndClientLong limit.Rule
	CodesPerAddressLong          limit.Rule
	CodesPerClient               limit.Rule
	// Attempts to register by one client.
	RegistrationsPerClient limit.Rule
	// Log-ins that failed: of one account by one client, of one account by
	// anybody, and of any account by one client.
	LogInsPerAccountAndClient limit.Rule
	LogInsPerAccount          limit.Rule
	LogInsPerClient           limit.Rule
}

// claim is one event of one limit.
type claim struct {
	name, key string
	rule      limit.Rule
	refusal   string
}

// takeAll takes every claim or none; refund takes them all back.
func (s *Service) takeAll(ctx context.Context, claims []claim) (refund func(), err error) {
	for i, c := range claims {
		if err := s.limits.Take(ctx, c.name, c.key, c.rule, c.refusal); err != nil {
			s.refund(ctx, claims[:i])
			return nil, err
		}
	}
	return func() { s.refund(ctx, claims) }, nil
}

func (s *Service) refund(ctx context.Context, claims []claim) {
	for _, c := range claims {
		s.limits.Refund(ctx, c.name, c.key, c.rule)
	}
}

// codeClaims are for one code to an address.
func (s *Service) codeClaims(client netip.Addr, email string) []claim {
	pause := limit.Rule{Count: 1, Per: s.rules.CodePause}
	if s.rules.CodePause <= 0 {
		pause.Count = 0
	}
	// Who asks for others' codes uses up what is theirs, not what is the owner's.
	network := limit.Network(client)
	own := network + " " + email
	const toAddress = "codes were sent to this address already; " +
		"look at its mail, also in the spam folder, or try again later"
	return []claim{
		{
			"code-client", network, s.rules.CodesPerClient,
			"too many codes were requested from your network; try again later",
		},
		{"code-pause", email, pause, "a code was sent to this address a moment ago; wait before you request another"},
		{"code-address", own, s.rules.CodesPerAddress, toAddress},
		{"code-address-client-long", own, s.rules.CodesPerAddressAndClientLong, toAddress},
		{"code-address-long", email, s.rules.CodesPerAddressLong, toAddress},
	}
}

func (s *Service) registrationClaims(network string) []claim {
	return []claim{
		{
			"register-client", network, s.rules.RegistrationsPerClient,
			"too many registrations were tried from your network; try again later",
		},
	}
}

// logInClaims are for one log-in. What counts is what was given, a name or an
// address: if both counted as the account, the limit of one would show that the
// other is of the same account.
//
// Wrong passwords from all over the world do not lock out a person whose network is
// known: there was a log-in to the account from it. Such a network's own limits stay.
func (s *Service) logInClaims(network, key string, known bool) []claim {
	const perAccount = "too many log-ins with a wrong password; " +
		"try again later, or from a network where you logged in before"
	claims := []claim{
		{
			"login-client", network, s.rules.LogInsPerClient,
			"too many log-ins with wrong passwords came from your network; try again later",
		},
		{"login-account-client", network + " " + key, s.rules.LogInsPerAccountAndClient, perAccount},
	}
	if !known {
		claims = append(claims, claim{"login-account", key, s.rules.LogInsPerAccount, perAccount})
	}
	return claims
}
