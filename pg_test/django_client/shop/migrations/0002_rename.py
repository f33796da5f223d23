from django.db import migrations, models


class Migration(migrations.Migration):
    """What makemigrations writes for a renamed model, a renamed column and a longer one."""

    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.RenameModel("Order", "Sale"),
        migrations.RenameField("Sale", "amount", "total"),
        migrations.AlterField("Sale", "note", models.TextField(default="", blank=True)),
    ]
