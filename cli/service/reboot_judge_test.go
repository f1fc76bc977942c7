package service

import (
	"encoding/json"
	"testing"

	"github.com/iotdm/iotdm/agent"
)

// The judge knows every outcome that the agent reports.
func TestTheJudgeKnowsTheAgentsOutcomes(t *testing.T) {
	for outcome, want := range map[agent.Outcome]string{
		agent.Rebooting: verdictRebooting, agent.Rebooted: verdictRebooted, agent.NotRebooted: verdictNotRebooted,
		agent.CommandFailed: verdictFailed, agent.Refused: verdictRefused,
	} {
		report, err := json.Marshal(agent.RebootRequest{ID: "r-1", Outcome: outcome, Reason: "why"})
		if err != nil {
			t.Fatal(err)
		}
		j := rebootTask.judge(reported{})
		j.answered(json.RawMessage(`{"requestId":"r-1"}`))
		got := j.find(reported{properties: map[string]json.RawMessage{"reboot": report}})
		if got.Verdict != want || got.Reason != "why" || got.final != (outcome != agent.Rebooting) {
			t.Errorf("outcome %s: found %+v, want %q", outcome, got, want)
		}
	}
}
