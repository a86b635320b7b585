package fake_test

import (
	"fmt"
	"testing"

	"github.com/msrchat/msrchat/shared/wire/wiretest"

	"github.com/msrchat/msrchat/client/internal/fake"
)

// The fake server keeps own states by the rules of the real one.
func TestOwnStatesOfTheFake(t *testing.T) {
	log := fake.NewLog()
	_, token := log.AddUser("ann")
	log.AddUser("bob")
	conversation := log.Open("ann", "bob")
	for i := range 5 {
		log.Say(conversation, "bob", fmt.Sprint(i))
	}
	one := wiretest.Device{Endpoint: fake.NewServer(t, log, "s1").Endpoint(), Token: token}
	two := wiretest.Device{Endpoint: fake.NewServer(t, log, "s2").Endpoint(), Token: token}
	wiretest.OwnStates(t, one, two, conversation)
}
