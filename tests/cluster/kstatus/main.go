// What the tools that wait for objects make of them: kstatus (Helm, kpt, and Flux by default), and Flux with
// healthCheckExprs. Standard input is {"objects": [...], "expressions": {"current", "inProgress", "failed"}}, with
// expressions for Flux's way; standard output is a list with the status of each object.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type question struct {
	Objects     []json.RawMessage                 `json:"objects"`
	Expressions *kustomize.HealthCheckExpressions `json:"expressions"`
}

func main() {
	log.SetFlags(0)
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		log.Fatal(err)
	}
	said := []string{}
	for _, raw := range asked.Objects {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(raw); err != nil {
			log.Fatal(err)
		}
		verdict, err := judge(object, asked.Expressions)
		if err != nil {
			log.Fatal(err)
		}
		said = append(said, verdict)
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		log.Fatal(err)
	}
}

func judge(object *unstructured.Unstructured, expressions *kustomize.HealthCheckExpressions) (string, error) {
	if expressions == nil {
		found, err := status.Compute(object)
		if err != nil {
			return "", err
		}
		return string(found.Status), nil
	}
	evaluator, err := cel.NewStatusEvaluator(expressions)
	if err != nil {
		return "", err
	}
	found, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return "", err
	}
	return string(found.Status), nil
}
